"""BLAS has as many threads after as before, whatever overlaps."""

import os
import random
import signal
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController, threadpool_limits

from sklearn_skmm import KMeansSelector, SkMMSelector
from sklearn_skmm.utils import _threads
from sklearn_skmm.utils._threads import in_turn, map_ahead, one_thread, threads_restored

BLAS = ThreadpoolController().select(user_api="blas")
SECONDS = 20


def count():
    return max(library["num_threads"] for library in BLAS.info())


@pytest.fixture(autouse=True)
def two_threads():
    # Not with `threadpool_limits`: in release 3.8 no other thread could change it meanwhile.
    before = count()
    for library in BLAS.lib_controllers:
        _threads._set_threads(library, 2)
    if count() != 2:
        pytest.skip("BLAS has one thread only")
    yield
    after = count()
    for library in BLAS.lib_controllers:
        _threads._set_threads(library, before)
    assert after == 2


@pytest.fixture
def workers():
    """Executors of one thread each."""
    with ExitStack() as stack:
        yield [stack.enter_context(ThreadPoolExecutor(1)) for _ in range(3)]


def enter(executor, context):
    executor.submit(context.__enter__).result()


def leave(executor, context):
    executor.submit(context.__exit__, None, None, None).result()


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (0, 2, 1)])
def test_contexts_of_several_threads_end_in_any_order(workers, order):
    contexts = [one_thread() for _ in workers]
    for worker, context in zip(workers, contexts, strict=True):
        enter(worker, context)
        assert count() == 1
    for k in order:
        assert count() == 1
        leave(workers[k], contexts[k])
    assert count() == 2


def test_many_contexts_at_random_in_many_threads():
    def work(seed):
        rng = random.Random(seed)
        for _ in range(40):
            with suppress(ZeroDivisionError), one_thread(), one_thread():
                assert count() == 1
                time.sleep(rng.random() / 2000)
                assert count() == 1
                1 / 0  # noqa: B018

    with ThreadPoolExecutor(6) as executor:
        list(executor.map(work, range(6)))


def test_limits_of_the_user_around_and_inside(workers):
    # In another thread than the one in which the user has set a limit, too.
    with threadpool_limits(3, user_api="blas"):
        contexts = [one_thread() for _ in workers]
        for worker, context in zip(workers, contexts, strict=True):
            enter(worker, context)
        assert count() == 1
        for worker, context in zip(workers, contexts, strict=True):
            leave(worker, context)
        assert count() == 3
        with one_thread():
            with threadpool_limits(2, user_api="blas"):
                with one_thread():
                    assert count() == 1
                assert count() == 2
            assert count() == 1
        assert count() == 3
    assert count() == 2


def test_a_limit_that_ends_within_a_context(workers):
    limit, context = threadpool_limits(3, user_api="blas"), one_thread()
    enter(workers[0], context)
    limit.__exit__(None, None, None)  # the user's limit of three ends, as if there were no context
    assert count() == 2
    with one_thread():
        assert count() == 1
    leave(workers[0], context)
    assert count() == 2


def test_a_limit_that_is_changed_for_good_within_a_context():
    with threadpool_limits(2, user_api="blas"):
        with one_thread():
            threadpool_limits(3, user_api="blas")
        assert count() == 3


def test_generators_that_are_closed_late_or_never(workers):
    # In reverse order, in another thread, and by the collector of garbage.
    for each in (in_turn, map_ahead):
        first, second = each(abs, range(100)), each(abs, range(100))
        assert next(first) == next(second) == 0
        assert count() == 1
        first.close()
        assert count() == 1
        workers[0].submit(second.close).result()
        assert count() == 2
        third = each(abs, range(100))
        next(third)
        del third
        assert count() == 2
        with pytest.raises(TypeError), closing(each(abs, [1, "a"])) as results:
            list(results)
        assert count() == 2


def test_code_that_limits_blas_itself(workers):
    # As scikit-learn's k-means: the second one finds one thread, and ends last.
    contexts, limits = [threads_restored() for _ in range(2)], []
    for worker, context in zip(workers, contexts, strict=False):
        enter(worker, context)
        limits.append(worker.submit(BLAS.limit, limits=1).result())
        enter(worker, limits[-1])
    for worker, context, limit in zip(workers, contexts, limits, strict=False):
        leave(worker, limit)
        leave(worker, context)
    assert count() == 2


@pytest.mark.parametrize("selector", [SkMMSelector, KMeansSelector])
def test_fits_in_threads(selector):
    X = np.random.default_rng(0).normal(size=(300, 4))

    def fit(n):
        return selector(n, random_state=0).fit(X).sample_indices_

    with ThreadPoolExecutor(4) as executor:
        for _ in range(2):
            found = list(executor.map(fit, range(4, 10)))
            assert count() == 2
    for n, indices in zip(range(4, 10), found, strict=True):
        np.testing.assert_array_equal(indices, fit(n))


class OwnLimits:
    """A library such as MKL, in which each thread has its own number of threads."""

    def __init__(self):
        self.local = threading.local()

    def get_num_threads(self):
        return getattr(self.local, "n_threads", 4)

    def set_num_threads(self, n_threads):
        self.local.n_threads = n_threads


def test_a_library_with_a_limit_for_each_thread(workers, monkeypatch):
    class Controller:
        lib_controllers = [OwnLimits()]  # noqa: RUF012

    (library,) = Controller.lib_controllers
    monkeypatch.setattr(_threads, "_blas", Controller)
    first, second = one_thread(), one_thread()
    enter(workers[0], first)
    enter(workers[1], second)
    assert [w.submit(library.get_num_threads).result() for w in workers] == [1, 1, 4]
    leave(workers[0], first)
    assert [w.submit(library.get_num_threads).result() for w in workers] == [4, 1, 4]
    leave(workers[1], second)
    assert [w.submit(library.get_num_threads).result() for w in workers] == [4, 4, 4]
    tasks = map_ahead(lambda _: library.get_num_threads(), range(9))
    assert list(tasks) == [1] * 9
    assert library.get_num_threads() == 4


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_fork_gets_the_threads_that_contexts_of_others_have_limited(workers):
    context = one_thread()
    enter(workers[0], context)
    own = one_thread()
    own.__enter__()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks with threads
        child = os.fork()
    if child == 0:
        code = 1
        try:
            within = count()
            own.__exit__(None, None, None)
            with one_thread():
                code = 0 if within == 1 == count() else 2
            code = code or (0 if count() == 2 else 3)
        finally:
            os._exit(code)
    own.__exit__(None, None, None)
    end = time.monotonic() + SECONDS
    found, status = os.waitpid(child, os.WNOHANG)
    while not found and time.monotonic() < end:
        time.sleep(0.01)
        found, status = os.waitpid(child, os.WNOHANG)
    if not found:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert found
    assert os.waitstatus_to_exitcode(status) == 0
    leave(workers[0], context)
