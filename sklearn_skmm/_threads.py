"""Many small tasks on the threads of BLAS, where BLAS itself would only be in its own way."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

from threadpoolctl import ThreadpoolController


def in_threads(function: Callable, tasks: Iterable) -> list:
    """Return what the function gives for each task, in order; with one thread, one by one.

    The number of threads is that of BLAS, which `threadpool_limits` and the environment set. In
    the meantime BLAS has one: products of some hundred rows are faster so, and do not wait for
    each other.

    Examples
    --------
    >>> in_threads(abs, [1, -2, 3])
    [1, 2, 3]
    """
    pools = ThreadpoolController().select(user_api="blas")
    n_threads = max((pool["num_threads"] for pool in pools.info()), default=1)
    with pools.limit(limits=1):
        if n_threads == 1:
            return [function(task) for task in tasks]
        with ThreadPoolExecutor(n_threads) as executor:
            # Each in a copy of the context, so that what `numpy.errstate` says holds in it too.
            futures = [executor.submit(copy_context().run, function, task) for task in tasks]
            try:
                return [future.result() for future in futures]
            finally:
                for future in futures:
                    future.cancel()  # what has not begun when one fails, or on an interrupt
