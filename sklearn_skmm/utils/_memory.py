"""The memory that is available on this machine or in this container."""

import os
from pathlib import Path


def available_memory() -> int | None:
    """Return the number of bytes that can be allocated without swapping, or None if unknown.

    In a container with a memory limit, this is what the limit leaves, if that is less than what
    the machine has.

    Examples
    --------
    >>> available_memory() != 0
    True
    """
    amounts = [amount for amount in (_machine_memory(), _container_memory()) if amount is not None]
    return min(amounts, default=None)


def _machine_memory() -> int | None:
    """Return the bytes available on the machine, or None if the system does not report them."""
    try:
        with open("/proc/meminfo") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return 1024 * int(line.split()[1])
    except OSError:
        pass
    try:
        # Without /proc: the total memory, an upper bound on what is available.
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def _container_memory(root: str | os.PathLike = "/sys/fs/cgroup") -> int | None:
    """Return the bytes that the memory limit of the control group (version 2) leaves, or None."""
    root = Path(root)
    try:
        limit = (root / "memory.max").read_text().strip()
        if limit == "max":
            return None
        used = int((root / "memory.current").read_text())
        lines = (root / "memory.stat").read_text().splitlines()
        # The page cache counts as used, but the kernel reclaims it on demand.
        counts = dict(line.split() for line in lines)
        return max(0, int(limit) - used + int(counts["inactive_file"]) + int(counts["active_file"]))
    except (OSError, ValueError, KeyError):
        return None
