"""The threads of BLAS: for many small tasks at a time, or kept out of a product."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from functools import cache

from threadpoolctl import ThreadpoolController


@cache
def _blas() -> ThreadpoolController:
    """Return the libraries of NumPy and SciPy, looked for once: that takes milliseconds."""
    return ThreadpoolController().select(user_api="blas")


def one_thread():
    """Return a context in which BLAS has one thread.

    A large product in single precision may have other last bits on another number of threads: on
    some processors each part goes by its shape to another kernel. The context is of the process,
    and with fits in several threads at a time only the first of them sets it.

    Examples
    --------
    >>> import numpy as np
    >>> with one_thread():
    ...     np.eye(2) @ np.ones(2)
    array([1., 1.])
    """
    return _blas().limit(limits=1)


def in_turn(function: Callable, tasks: Iterable) -> Generator:
    """Yield what the function gives for each task, in order, while BLAS has one thread.

    Examples
    --------
    >>> list(in_turn(abs, [1, -2, 3]))
    [1, 2, 3]
    """
    with one_thread():
        yield from map(function, tasks)


def map_ahead(function: Callable, tasks: Iterable, limit: int | None = 3) -> Generator:
    """Yield what `in_turn` does; so many at a time, None is all, are computed in threads meanwhile.

    The number of threads is that of BLAS, which `threadpool_limits` and the environment set. In
    the meantime BLAS has one: products of some hundred rows are faster so, and do not wait for
    each other. To be closed if it is not read to its end.

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
                # In a copy of the context, so that what `numpy.errstate` says holds in it too.
                futures.append(executor.submit(copy_context().run, function, task))
                if len(futures) == limit:
                    yield futures.popleft().result()
            while futures:
                yield futures.popleft().result()
        finally:
            for future in futures:
                future.cancel()  # what has not begun when one fails, or on an interrupt


def in_threads(function: Callable, tasks: Iterable) -> list:
    """Return what the function gives for each task, in order, computed in threads.

    Examples
    --------
    >>> in_threads(abs, [1, -2, 3])
    [1, 2, 3]
    """
    return list(map_ahead(function, tasks, limit=None))
