"""Control of the threads of BLAS, and maps over tasks that use threads."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from functools import cache

from threadpoolctl import ThreadpoolController


@cache
def _blas() -> ThreadpoolController:
    """Return a controller of the BLAS libraries, cached because the search takes milliseconds."""
    return ThreadpoolController().select(user_api="blas")


def one_thread():
    """Return a context in which BLAS uses one thread.

    The last bits of a large product in single precision can depend on the number of threads: on
    some processors, the shape of each part decides which kernel computes it. The setting applies
    to the whole process. If several threads fit at the same time, only the first of them sets it.

    Examples
    --------
    >>> import numpy as np
    >>> with one_thread():
    ...     np.eye(2) @ np.ones(2)
    array([1., 1.])
    """
    return _blas().limit(limits=1)


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
    n_threads = max((pool["num_threads"] for pool in _blas().info()), default=1)
    if n_threads == 1:
        yield from in_turn(function, tasks)
        return
    futures: deque[Future] = deque()
    with one_thread(), ThreadPoolExecutor(n_threads) as executor:
        try:
            for task in tasks:
                # A copy of the context carries the settings of `numpy.errstate` to the thread.
                futures.append(executor.submit(copy_context().run, function, task))
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
