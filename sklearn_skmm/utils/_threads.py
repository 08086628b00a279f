"""Control of the threads of BLAS, and maps over tasks that use threads."""

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from functools import cache
from typing import Any

from threadpoolctl import ThreadpoolController


@cache
def _blas() -> ThreadpoolController:
    """Return a controller of the BLAS libraries, cached because the search takes milliseconds."""
    return ThreadpoolController().select(user_api="blas")


class _Context:
    """One context of a thread."""

    def __init__(self) -> None:
        self.thread = threading.get_ident()


class _OpenContexts:
    """The open contexts of `one_thread` and `threads_restored`, from the oldest to the newest.

    A context that finds more than one thread remembers how many. When it ends, it gives them back
    if it is the newest. Otherwise the next newer context will.
    """

    def __init__(self) -> None:
        self.found: dict[_Context, dict[Any, int]] = {}

    def leave(self, context: _Context) -> None:
        if context not in self.found:
            return
        found, contexts = self.found[context], list(self.found)
        newer = contexts[contexts.index(context) + 1 :]
        for library, n_threads in found.items():
            if newer:
                inherited = self.found[newer[0]]
                inherited[library] = max(n_threads, inherited.get(library, 1))
            elif library.get_num_threads() == 1:  # otherwise somebody has changed it since
                _set_threads(library, n_threads)
        # Last, so that leaving again after Ctrl-C does the rest.
        del self.found[context]


# Reentrant, because collecting garbage may close a generator that is in a context.
_LOCK = threading.RLock()
_OF_PROCESS = _OpenContexts()
_LOCAL = threading.local()


def _of_thread() -> _OpenContexts:
    if not hasattr(_LOCAL, "contexts"):
        _LOCAL.contexts = _OpenContexts()
    return _LOCAL.contexts


def _set_threads(library: Any, n_threads: int) -> None:
    # threadpoolctl 3.8 ignores all threads but one, but here any thread may be the last to leave.
    getattr(library, "_real_set_num_threads", library.set_num_threads)(n_threads)


@cache
def _limited_by_thread(library: Any) -> bool:
    """Return whether each thread has its own limit, of a library that now has several threads.

    This depends on the library, on how it was built and on the release of threadpoolctl.
    """
    seen: list[int] = []
    n_threads = library.get_num_threads()
    try:
        _set_threads(library, 1)
        other = threading.Thread(target=lambda: seen.append(library.get_num_threads()))
        other.start()
        other.join()
    finally:
        _set_threads(library, n_threads)
    return seen != [1]


def _enter(context: _Context, limit: bool) -> None:
    with _LOCK:
        of_thread = _of_thread()
        first = {id(contexts): not contexts.found for contexts in (_OF_PROCESS, of_thread)}
        _OF_PROCESS.found[context], of_thread.found[context] = {}, {}
        for library in _blas().lib_controllers:
            n_threads = library.get_num_threads() or 1
            if n_threads > 1:
                contexts = of_thread if _limited_by_thread(library) else _OF_PROCESS
                if limit or first[id(contexts)]:
                    contexts.found[context][library] = n_threads
                if limit:
                    _set_threads(library, 1)


def _leave(context: _Context) -> None:
    with _LOCK:
        _of_thread().leave(context)  # of another thread that closes a generator: nothing
        _OF_PROCESS.leave(context)


def _after_fork_in_child() -> None:
    """End the contexts of threads that a forked process does not have."""
    try:
        for context in list(_OF_PROCESS.found):
            if context.thread != threading.get_ident():
                _OF_PROCESS.leave(context)
    finally:
        _LOCK.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_LOCK.acquire, after_in_parent=_LOCK.release, after_in_child=_after_fork_in_child
    )


@contextmanager
def _open_context(limit: bool) -> Iterator[None]:
    context = _Context()
    try:
        _enter(context, limit)
        yield
    finally:
        try:
            _leave(context)
        except BaseException:  # Ctrl-C
            _leave(context)
            raise


def one_thread():
    """Return a context in which BLAS uses one thread.

    The last bits of a large product in single precision can depend on the number of threads: on
    some processors, the shape of each part decides which kernel computes it. For most libraries the
    setting applies to the whole process. If several threads are in such contexts, the last of them
    restores what the first has found, in whatever order they leave.

    Examples
    --------
    >>> import numpy as np
    >>> with one_thread():
    ...     np.eye(2) @ np.ones(2)
    array([1., 1.])
    """
    return _open_context(limit=True)


def threads_restored():
    """Return a context for code that limits the threads of BLAS itself, as scikit-learn's does.

    If several threads run such code at the same time, BLAS would be left with one thread.

    Examples
    --------
    >>> from threadpoolctl import threadpool_limits
    >>> with threads_restored(), threadpool_limits(1, user_api="blas"):
    ...     pass
    """
    return _open_context(limit=False)


def in_turn(function: Callable, tasks: Iterable) -> Generator:
    """Yield the result of the function for each task, in order, while BLAS uses one thread.

    Examples
    --------
    >>> list(in_turn(abs, [1, -2, 3]))
    [1, 2, 3]
    """
    with one_thread():
        yield from map(function, tasks)


def map_ahead(function: Callable, tasks: Iterable, limit: int | None = 3) -> Generator:
    """Yield the same results as `in_turn`, computed ahead of time in threads.

    At most `limit` tasks are pending at a time; with None, all of them. The number of threads is
    that of BLAS, which `threadpool_limits` and the environment set. Meanwhile BLAS itself uses one
    thread, because products of some hundred rows are then faster and do not wait for each other.
    Close the generator if you do not exhaust it.

    Examples
    --------
    >>> list(map_ahead(abs, [1, -2, 3]))
    [1, 2, 3]
    """
    n_threads = max((lib.get_num_threads() or 1 for lib in _blas().lib_controllers), default=1)
    if n_threads == 1:
        yield from in_turn(function, tasks)
        return

    def alone(task: Any) -> Any:
        with one_thread():  # for libraries with a number of threads for each thread
            return function(task)

    futures: deque[Future] = deque()
    with one_thread(), ThreadPoolExecutor(n_threads) as executor:
        try:
            for task in tasks:
                # A copy of the context carries the settings of `numpy.errstate` to the thread.
                futures.append(executor.submit(copy_context().run, alone, task))
                if len(futures) == limit:
                    yield futures.popleft().result()
            while futures:
                yield futures.popleft().result()
        finally:
            for future in futures:
                future.cancel()  # tasks not yet started when one fails or on an interrupt


def in_threads(function: Callable, tasks: Iterable) -> list:
    """Return the results of the function for all tasks, in order, computed in threads.

    Examples
    --------
    >>> in_threads(abs, [1, -2, 3])
    [1, 2, 3]
    """
    return list(map_ahead(function, tasks, limit=None))
