"""How much memory there is, and whether a selection fits into it."""

import os
from pathlib import Path

from sklearn_skmm import _cells, _layout, _parts, _rounding
from sklearn_skmm._costs import BLOCK, CACHE_BYTES

# Less than this fits wherever the samples do.
SMALL = 2**28


def available_memory() -> int | None:
    """Return how many bytes can be allocated without swapping, None where nobody says.

    In a container that is what its limit leaves, where that is less.

    Examples
    --------
    >>> available_memory() != 0
    True
    """
    amounts = [amount for amount in (_of_machine(), _of_container()) if amount is not None]
    return min(amounts, default=None)


def check_fits(estimator, shape, needed: float) -> None:
    """Refuse samples of which a selector would need more memory than there is.

    Parameters
    ----------
    estimator : estimator
        Named in the message.
    shape : tuple of int
        Of X, which is in memory already or in a file.
    needed : float
        Bytes that the estimator holds at its peak next to X.

    Raises
    ------
    MemoryError
        If that is more than is available. Linux would rather end the process than say so.
    """
    if needed < SMALL:
        return
    available = available_memory()
    if available is not None and needed > available:
        raise MemoryError(
            f"{estimator} would take about {needed / 2**30:,.1f} GiB next to X of shape {shape}, "
            f"but {available / 2**30:,.1f} GiB are available. Use fewer features, as a "
            "GradientSketcher with a smaller m gives, or SkMMSelector with its default rounding, "
            "which reads float32 and memory-mapped arrays where they are."
        )


def peak_of_scores(n_samples: int, k: int) -> float:
    """Return the peak of a draw by scores that come from k components of each sample, in bytes.

    The components and their squares first; then these next to the vectors of the draw.

    Examples
    --------
    >>> peak_of_scores(1000, 64)
    1032000
    """
    return 8 * n_samples * max(2 * k + 1, k + 6)


def peak_of_exemplars(n_samples: int, n_features: int, itemsize: int = 4) -> float:
    """Return the peak of `greedy_exemplars` in bytes, for more than some tens of picks.

    A centred copy in double precision and two factors in single; the costs that are kept, all or as
    many as fit; and three blocks of 256 columns of the costs, in so many bytes each.

    Examples
    --------
    >>> peak_of_exemplars(10_000, 64) / 2**20
    183.0625
    """
    pairs = itemsize * n_samples * (n_samples + BLOCK) // 2
    columns = 3 * 256 * itemsize
    # The median distance is that of a thousand samples, by all of theirs.
    median = 20 * min(n_samples, 1000) ** 2
    return max(median, min(pairs, CACHE_BYTES) + n_samples * (2 * 8 * n_features + columns))


def peak_of_layout(n_samples: int, n_features: int, n: int) -> float:
    """Return the peak of a layout of n cells in bytes, but for vectors of N entries.

    Examples
    --------
    >>> peak_of_layout(10**6, 64, 200) / 2**20, peak_of_layout(10**6, 64, 1000) / 2**20
    (168.0, 68.0)
    """
    if _layout.at_once(n, n_samples):
        size = max(_cells.SUBSAMPLE, _cells.SUBSAMPLE_PER_PICK * n)
        return peak_of_exemplars(min(n_samples, size), n_features)
    n_cells = int(_parts.COARSE * n**0.5)
    size = min(n_samples, max(_parts.COARSE_SUBSAMPLE, _cells.STEP_PER_PICK * n_cells))
    return 17 * size**2  # costs in double precision, those of the first pick's cell, and a mask


def last_at_once(n_samples: int) -> int:
    """Return about how many items `spread` is left with when it looks at all their distances.

    Examples
    --------
    >>> last_at_once(4000), last_at_once(10_000)
    (4000, 2500)
    """
    while n_samples > _rounding.EXACT:
        n_samples //= 4
    return n_samples


def _of_machine() -> int | None:
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


def _of_container(root: str | os.PathLike = "/sys/fs/cgroup") -> int | None:
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
