"""How much memory algorithms hold at their peak, next to their input."""

from sklearn_skmm.core import _cells, _coarse_cells, _draws, _layout
from sklearn_skmm.core._costs import BLOCK, CACHE_BYTES


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
        size = max(_cells.SUBSAMPLE, _cells.SUBSAMPLE_PER_EXEMPLAR * n)
        return peak_of_exemplars(min(n_samples, size), n_features)
    n_cells = int(_coarse_cells.COARSE * n**0.5)
    size = min(
        n_samples,
        max(_coarse_cells.COARSE_SUBSAMPLE, _cells.SMALL_SUBSAMPLE_PER_EXEMPLAR * n_cells),
    )
    return 17 * size**2  # costs in double precision, those of the first pick's cell, and a mask


def spread_exact_items(n_samples: int) -> int:
    """Return about how many items `spread` is left with when it looks at all their distances.

    Examples
    --------
    >>> spread_exact_items(4000), spread_exact_items(10_000)
    (4000, 2500)
    """
    while n_samples > _draws.MAX_EXACT:
        n_samples //= 4
    return n_samples
