"""What threads share: the modules of a model, and settings of the whole process."""

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import ClassVar

import torch

DEADLOCK = (
    "Threads use one model inside of another, in opposite order, and would wait for each other "
    "forever. Use the models in the same order in all threads, or run one job at a time."
)


class Use:
    """One use of some modules by a thread.

    Attributes
    ----------
    thread : int
        The thread.
    modules : list of Module
        The modules. The list keeps their identifiers from being used again.
    outer : list of Use
        Uses by the same thread within which this one began.
    restore : callable or None
        Restores the modules in a process that was forked during the use.
    """

    def __init__(self, modules: Iterable[torch.nn.Module]) -> None:
        self.thread = threading.get_ident()
        self.modules = list(modules)
        self.outer: list[Use] = []
        self._ids = frozenset(map(id, self.modules))
        self.restore: Callable[[], None] | None = None
        self.turn = threading.Lock()  # of a use that waits: released when it may begin

    def excludes(self, other: "Use") -> bool:
        """Return whether the two must not happen at the same time."""
        return self.thread != other.thread and not self._ids.isdisjoint(other._ids)


class Uses:
    """The uses of modules by all threads, at most one thread for each module at a time.

    A use takes all modules of a model at once, or waits. So models that share modules exclude each
    other, and only threads that are within a use and ask for another can wait in a circle, which is
    refused. Threads take turns in the order of asking.
    """

    def __init__(self) -> None:
        # Reentrant, because collecting garbage may end a use.
        self._lock = threading.RLock()
        self._present: list[Use] = []
        self._waiting: list[Use] = []

    def begin(self, use: Use) -> None:
        """Wait until no other thread uses the modules."""
        with self._lock:
            use.outer = [other for other in self._present if other.thread == use.thread]
            if self._may_begin(use, self._waiting):
                self._present.append(use)
                return
            if use.outer and use.thread in self._waited_for(use):
                raise RuntimeError(DEADLOCK)
            use.turn.acquire()
            self._waiting.append(use)
        use.turn.acquire()

    def end(self, use: Use) -> None:
        """Let the next threads use the modules. Does nothing if the use has ended or not begun."""
        with self._lock:
            for uses in (self._waiting, self._present):
                if use in uses:
                    uses.remove(use)
            earlier: list[Use] = []
            for other in list(self._waiting):
                if other in self._present or self._may_begin(other, earlier):
                    # In an order that can be repeated after Ctrl-C.
                    if other not in self._present:
                        self._present.append(other)
                    if other.turn.locked():
                        other.turn.release()
                    self._waiting.remove(other)
                else:
                    earlier.append(other)

    def _may_begin(self, use: Use, earlier: list[Use]) -> bool:
        # Who is within a use cannot wait for those who may wait for it.
        ahead = self._present if use.outer else [*self._present, *earlier]
        return not any(use.excludes(other) for other in ahead)

    def _waited_for(self, use: Use) -> set[int]:
        """Return the threads that must proceed before the use can begin."""
        threads: set[int] = set()
        uses = [use]
        while uses:
            asked = uses.pop()
            found = {other.thread for other in self._present if asked.excludes(other)} - threads
            threads |= found
            uses += [other for other in self._waiting if other.thread in found]
        return threads

    def after_fork_in_child(self) -> None:
        """Forget the other threads, which a forked process does not have."""
        present = self._present
        self._lock, self._waiting = threading.RLock(), []
        self._present = [use for use in present if use.thread == threading.get_ident()]
        for use in reversed(present):
            if use not in self._present and use.restore is not None:
                use.restore()


_USES = Uses()


@contextmanager
def exclusive_use(modules: Iterable[torch.nn.Module]) -> Iterator[Use]:
    """Wait until no other thread uses any of the modules, and keep others from using them.

    While gradients are computed, a model has other parameters, hooks and modes. A thread may use
    its modules again within the context. Nothing is stored in the modules.

    Do not yield to a consumer within the context: other threads would wait for it.
    """
    use = Use(modules)
    try:
        _USES.begin(use)
        yield use
    finally:
        try:
            _USES.end(use)
        except BaseException:  # Ctrl-C
            _USES.end(use)
            raise


class ProcessSetting:
    """A setting of the whole process that several threads need at the same time.

    The first thread enters the context and the last one exits it. Each on its own would restore
    what another has set.

    Parameters
    ----------
    make_context : callable
        Returns a new context that makes the setting.
    """

    _all: ClassVar[list["ProcessSetting"]] = []

    def __init__(self, make_context: Callable[[], AbstractContextManager]) -> None:
        self._make_context = make_context
        self._lock = threading.RLock()
        self._users: list[tuple[int, object]] = []
        self._context: AbstractContextManager | None = None
        self._all.append(self)

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Return a context in which the setting holds."""
        user = (threading.get_ident(), object())
        try:
            with self._lock:
                self._users.append(user)
                if self._context is None:
                    context = self._make_context()
                    context.__enter__()
                    self._context = context
            yield
        finally:
            try:
                self._leave([user])
            except BaseException:  # Ctrl-C
                self._leave([user])
                raise

    def _leave(self, users: list[tuple[int, object]]) -> None:
        with self._lock:
            self._users = [user for user in self._users if user not in users]
            if not self._users and self._context is not None:
                context, self._context = self._context, None
                context.__exit__(None, None, None)

    def after_fork_in_child(self) -> None:
        """Leave for the other threads, which a forked process does not have."""
        self._lock = threading.RLock()
        self._leave([user for user in self._users if user[0] != threading.get_ident()])


def _after_fork_in_child() -> None:
    _USES.after_fork_in_child()
    for setting in ProcessSetting._all:
        setting.after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
