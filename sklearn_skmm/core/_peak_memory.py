"""Estimates of the peak memory of algorithms, in addition to their input."""

from sklearn_skmm.core import (
    _balanced_cells,
    _balanced_means,
    _cells,
    _draws,
    _exemplar_cells,
    _exemplar_layout,
)
from sklearn_skmm.core._blocks import BLOCK as BLOCK_ENTRIES
from sklearn_skmm.core._costs import BLOCK, CACHE_BYTES


def peak_of_scores(n_samples: int, k: int) -> float:
    """Return the peak memory, in bytes, of sampling by scores from k components of each sample.

    First the components and their squares are in memory, then the components and the vectors of
    the sampling.

    Examples
    --------
    >>> peak_of_scores(1000, 64)
    1032000
    """
    return 8 * n_samples * max(2 * k + 1, k + 6)


def peak_of_exemplars(n_samples: int, n_features: int, itemsize: int = 4) -> float:
    """Return the peak memory of `greedy_exemplars` in bytes, for more than some tens of exemplars.

    It consists of a centred copy in double precision, two factors in single precision, the cached
    costs (all, or as many as fit) and three blocks of 256 columns of costs of `itemsize` bytes.

    Examples
    --------
    >>> peak_of_exemplars(10_000, 64) / 2**20
    183.0625
    """
    pairs = itemsize * n_samples * (n_samples + BLOCK) // 2
    columns = 3 * 256 * itemsize
    # The median distance takes all distances between at most a thousand samples.
    median = 20 * min(n_samples, 1000) ** 2
    return max(median, min(pairs, CACHE_BYTES) + n_samples * (2 * 8 * n_features + columns))


def peak_of_exemplar_layout(n_samples: int, n_features: int, n: int) -> float:
    """Return the peak memory of `exemplar_cells` in bytes, without vectors of N entries.

    Examples
    --------
    >>> peak_of_exemplar_layout(10**6, 64, 200) / 2**20
    168.0
    """
    if _exemplar_layout.at_once(n, n_samples):
        size = max(_exemplar_cells.SUBSAMPLE, _exemplar_cells.SUBSAMPLE_PER_EXEMPLAR * n)
        return peak_of_exemplars(min(n_samples, size), n_features)
    n_cells = int(_exemplar_layout.COARSE * n**0.5)
    size = min(
        n_samples,
        max(
            _exemplar_layout.COARSE_SUBSAMPLE,
            _exemplar_cells.SMALL_SUBSAMPLE_PER_EXEMPLAR * n_cells,
        ),
    )
    return 17 * size**2  # costs in double precision, those of the first exemplar's cell, and a mask


def peak_of_balanced_layout(
    n_samples: int, n_features: int, n: int, itemsize: int, n_candidates: int | None = None
) -> float:
    """Return the peak memory of `balanced_cells` in bytes, without vectors of N entries.

    It consists of a subsample and its distances from the centres, or of a block of rows, and of the
    means of all cells. Parts of the rows may be copied. The matching of moments afterwards squares
    blocks of the candidates' components in double precision.

    Examples
    --------
    >>> peak_of_balanced_layout(10**6, 64, 200, 4) / 2**20
    8.396484375
    """
    few = min(n, _balanced_cells.FEW)
    size = min(n_samples, max(_balanced_means.WHOLE.size, _balanced_means.PER_CENTRE * few))
    # Coarse cells have some 1/100 of the samples.
    part = min(_cells.GATHER_BYTES, itemsize * n_samples * n_features / 32) if n > few else 0
    block = itemsize * min(BLOCK_ENTRIES, n_samples * max(n_features, few))
    means = (8 + itemsize) * n * n_features
    candidates = n_samples if n_candidates is None else min(n_samples, n_candidates * n)
    matching = max(
        8 * min(BLOCK_ENTRIES, 2 * candidates * n_features),
        itemsize * min(BLOCK_ENTRIES, n_samples * n_features),
    )
    return max(itemsize * size * (n_features + few) + part, block + part, matching) + means


def spread_exact_items(n_samples: int) -> int:
    """Estimate how many items are left when `spread` first computes all distances between them.

    Examples
    --------
    >>> spread_exact_items(4000), spread_exact_items(10_000)
    (4000, 2500)
    """
    while n_samples > _draws.MAX_EXACT:
        n_samples //= 4
    return n_samples
