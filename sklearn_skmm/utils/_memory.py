"""How much memory the machine has left."""

import os
from pathlib import Path


def available_memory() -> int | None:
    """Return how many bytes can be allocated without swapping, None where nobody says.

    In a container that is what its limit leaves, where that is less.

    Examples
    --------
    >>> available_memory() != 0
    True
    """
    amounts = [amount for amount in (_machine_memory(), _container_memory()) if amount is not None]
    return min(amounts, default=None)


def _machine_memory() -> int | None:
    try:
        with open("/proc/meminfo") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return 1024 * int(line.split()[1])
    except OSError:
        pass
    try:
        # Elsewhere: all that there is, which is no less.
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def _container_memory(root: str | os.PathLike = "/sys/fs/cgroup") -> int | None:
    """Return what the limit of a control group leaves, by version 2 of their interface."""
    root = Path(root)
    try:
        limit = (root / "memory.max").read_text().strip()
        if limit == "max":
            return None
        used = int((root / "memory.current").read_text())
        lines = (root / "memory.stat").read_text().splitlines()
        # Pages of files count as used, and are given back when they are needed.
        counts = dict(line.split() for line in lines)
        return max(0, int(limit) - used + int(counts["inactive_file"]) + int(counts["active_file"]))
    except (OSError, ValueError, KeyError):
        return None
