"""Cell moment matching: select one sample from each cell so that the moments match.

Exemplars cover the data and are central in their cells, but they make the second moment too small,
which hurts regression. A sample that only matches the moments favours the margins of the data,
which hurts classification. Matching the moments within cells combines coverage and moments.
"""

from contextlib import closing
from itertools import chain, pairwise

import numpy as np
from sklearn.utils.extmath import row_norms

from sklearn_skmm.core._blocks import each_block, row_blocks, sum_of_blocks, weighted_block_sum
from sklearn_skmm.core._cells import Cells, by_cell
from sklearn_skmm.core._moments import ridge_of_dimension
from sklearn_skmm.utils._threads import in_turn, map_ahead

# Maximum number of passes over the cells, and the fraction of changed selections at or below which
# no further pass is made. With thousands of cells, the third pass changes the objective by less
# than a hundredth.
SWEEPS, MIN_MOVED = 3, 0.02
# Features of several cells, about this many entries, are computed together; they stay in cache.
BATCH_ENTRIES = 2**18
# Features of the next cells are computed ahead in threads if cells have at least the first number
# of entries on average (with fewer, threads wait for each other) and none has more than the second
# number (which would take too much memory).
PREFETCH_ENTRIES = 2**17, 2**21


def direction_weights(eigenvalues: np.ndarray, n: int) -> np.ndarray:
    """Return the weight of each direction in `moment_features`; the weights sum to 1.

    `eigenvalues` and the weights have shape (k,); n is the size of the coreset.

    Examples
    --------
    >>> import numpy as np
    >>> direction_weights(np.array([4.0, 4.0]), 1)
    array([0.5, 0.5])
    """
    alpha = ridge_of_dimension(eigenvalues, 0.5 * min(n, 0.9 * eigenvalues.size))
    weights = eigenvalues / (eigenvalues + alpha)
    return weights / weights.sum()


def moment_features(P: np.ndarray, eigenvalues: np.ndarray, n: int) -> np.ndarray:
    r"""Return features whose mean is the first moment and the diagonal of the second moment.

    Parameters
    ----------
    P : ndarray of shape (N, k)
        Components of the samples along the eigenvectors.
    eigenvalues : ndarray of shape (k,)
        :math:`\lambda_j > 0`.
    n : int
        Size of the coreset.

    Returns
    -------
    F : ndarray of shape (N, 2k)
        :math:`\sqrt{w_j}\, p_{ij}^2 / \lambda_j` and :math:`\sqrt{w_j}\, p_{ij} /
        \sqrt{\lambda_j}`, so errors are relative to the eigenvalue. Each direction is weighted
        by :math:`w_j \propto \lambda_j / (\lambda_j + \alpha)`, the fraction of it that ridge
        regression fits, with the ridge at which the effective dimension is half of min(n, 0.9 k).
        With weights proportional to the eigenvalues instead, an offset of the data would
        dominate all other directions.

    Examples
    --------
    >>> import numpy as np
    >>> moment_features(np.array([[2.0], [-2.0]]), np.array([4.0]), 1).mean(axis=0)
    array([1., 0.])
    """
    return MomentFeatures(P, eigenvalues, n)[:]


class MomentFeatures:
    """The rows of `moment_features`, computed on access in double precision.

    A row of features is a row of `moments` times `scale`, which has one factor for each column.
    Parameters are those of `moment_features`; P may also be a `Components`.

    Examples
    --------
    >>> import numpy as np
    >>> F = MomentFeatures(np.array([[2.0], [-2.0]]), np.array([4.0]), 1)
    >>> F[[1]], F.mean(np.array([0.5, 0.5]))
    (array([[ 1., -1.]]), array([1., 0.]))
    """

    def __init__(self, P, eigenvalues: np.ndarray, n: int):
        self.P, self.root = P, np.sqrt(direction_weights(eigenvalues, n))
        self.unit = np.sqrt(eigenvalues)
        self.scale = np.hstack([self.root / self.unit**2, self.root / self.unit])
        self.shape = (P.shape[0], 2 * P.shape[1])

    def moments(self, rows) -> np.ndarray:
        """Return the squared components and the components of these rows, (n_rows, 2k)."""
        P = self.P[rows]
        k = P.shape[1]
        both = np.empty((len(P), 2 * k))
        np.square(P, out=both[:, :k], dtype=np.float64)
        both[:, k:] = P
        return both

    def __getitem__(self, rows) -> np.ndarray:
        return self.moments(rows) * self.scale

    def squared_norms(self, rows) -> np.ndarray:
        """Return |F_i|² for each of these rows."""
        squares = np.square(self.P[rows], dtype=np.float64)
        squares /= self.unit**2
        weight = self.root**2
        return squares @ weight + np.square(squares) @ weight

    def mean(self, s: np.ndarray) -> np.ndarray:
        """Return Σ_i s_i F_i, of shape (2k,), for s of shape (N,)."""

        def of_block(rows):
            P = self.P[rows]
            return np.hstack(
                [weighted_block_sum(s[rows], np.square(P)), weighted_block_sum(s[rows], P)]
            )

        return self.scale * sum_of_blocks(of_block, row_blocks(*self.shape), self.shape[1:])


class _ArrayFeatures:
    """An array of features with the interface of `MomentFeatures`."""

    def __init__(self, F: np.ndarray):
        self.F, self.shape, self.scale = F, F.shape, 1.0

    def __getitem__(self, rows):
        return self.F[rows]

    moments = __getitem__

    def squared_norms(self, rows):
        return row_norms(self.F[rows], squared=True)


def draw_candidates(
    labels: np.ndarray, s: np.ndarray, n: int, count: int | None, rng: np.random.RandomState
) -> tuple[np.ndarray, np.ndarray]:
    """Draw up to `count` candidates from each cell, with probabilities proportional to the weights.

    A systematic sample of each cell: the members lie on a line, each on an interval as long as its
    weight, and equally spaced points, shifted by one random number, select those that they hit.

    Parameters
    ----------
    labels : ndarray of shape (N,), dtype int
        The cell of each sample.
    s : ndarray of shape (N,)
        Positive weights.
    n : int
        Number of cells, none of which is empty.
    count : int or None
        Number of points on each cell. Members that several points hit count once. None takes all
        members.
    rng : RandomState
        Source of randomness.

    Returns
    -------
    candidates : ndarray of shape (n_candidates,), dtype int
        Their positions, sorted by cell.
    starts : ndarray of shape (n + 1,), dtype int
        Where each cell starts among them, and their number.

    Examples
    --------
    >>> import numpy as np
    >>> labels, rng = np.array([0, 1, 0, 1, 1, 1]), np.random.RandomState(0)
    >>> draw_candidates(labels, np.ones(6), 2, 2, rng)
    (array([0, 2, 3, 5]), array([0, 2, 4]))
    """
    order, starts = by_cell(labels, n)
    if count is None or count >= np.diff(starts).max():
        return order, starts
    ends = np.cumsum(s[order], dtype=np.float64)
    low, high = np.append(0.0, ends)[starts[:-1]], ends[starts[1:] - 1]
    points = (np.arange(count) + rng.uniform(size=(n, 1))) / count
    points = low[:, None] + (high - low)[:, None] * points
    hit = np.searchsorted(ends, points.ravel(), side="right").reshape(n, count)
    hit = np.unique(np.clip(hit, starts[:-1, None], starts[1:, None] - 1))  # against rounding
    return order[hit], np.searchsorted(hit, starts)


def match_in_cells(
    F: MomentFeatures | np.ndarray,
    target: np.ndarray,
    cells: Cells,
    centrality: float,
    rng: np.random.RandomState,
    candidates: tuple[np.ndarray, np.ndarray] | None = None,
) -> np.ndarray:
    r"""Select one sample from each cell so that their mean of F is close to the target.

    Coordinate descent over the cells on

    .. math:: \Big\|\frac{1}{n} \sum_c F_{i_c} - t\Big\|^2
              + \rho\, \frac{1}{n} \sum_c \frac{cost_{i_c}}{\overline{cost}}

    starting from a random member of each cell.

    Parameters
    ----------
    F : MomentFeatures or ndarray of shape (N, q)
        Features; only those of a few cells are in memory at a time.
    target : ndarray of shape (q,)
        The mean t to match.
    cells : Cells
        The partition.
    centrality : float
        :math:`\rho`; with infinity, only the costs count.
    rng : RandomState
        Source of randomness for the start and the order of the cells.
    candidates : tuple of two ndarrays or None, default=None
        The members of each cell that may be selected, from `draw_candidates`. None means all.

    Returns
    -------
    picks : ndarray of shape (n,), dtype int
        The position of the sample selected from each cell.

    Examples
    --------
    >>> import numpy as np
    >>> cells = Cells(np.array([1, 4]), np.array([0, 0, 0, 1, 1, 1]), np.array([1, 0, 1.0] * 2))
    >>> F = np.array([[-3.0], [-2.0], [-1.0], [1.0], [2.0], [3.0]])
    >>> rng = np.random.RandomState(0)
    >>> match_in_cells(F, np.array([1.0]), cells, 0.0, rng)
    array([2, 5])
    >>> match_in_cells(F, np.array([1.0]), cells, np.inf, rng)
    array([1, 4])
    """
    n = len(cells.exemplars)
    # Sorted by cell, the candidates of a cell are a slice.
    order, starts = candidates or by_cell(cells.labels, n)
    if np.isinf(centrality):
        least = np.minimum.reduceat(cells.costs[order], starts[:-1])
        central = np.flatnonzero(cells.costs[order] == np.repeat(least, np.diff(starts)))
        return order[central[np.searchsorted(central, starts[:-1])]]
    features = F if isinstance(F, MomentFeatures) else _ArrayFeatures(F)
    cost_weight = centrality / n / (float(cells.costs.mean(dtype=np.float64)) or 1.0)
    # The terms of the objective that do not depend on other cells.
    own_terms = np.empty(len(order))

    def fill(rows):
        own_terms[rows] = features.squared_norms(order[rows]) / n**2
        own_terms[rows] += cells.costs[order[rows]] * cost_weight

    each_block(fill, row_blocks(len(order), features.shape[1]))
    tie = 1e-12 * float(own_terms.max())
    picks = starts[:-1] + np.floor(rng.uniform(size=n) * np.diff(starts)).astype(int)
    chosen = features[order[picks]] / n
    residual = chosen.sum(axis=0) - target
    scale, slope = features.scale / n, 2.0 / n * features.scale
    sizes, members = np.diff(starts), [slice(*ends) for ends in pairwise(starts.tolist())]
    entries = sizes * features.shape[1]

    def cell_moments(batch):
        """Return a pair for each of these cells: the cell and the moments of its members."""
        moments = features.moments(np.concatenate([order[members[c]] for c in batch]))
        return zip(batch.tolist(), np.split(moments, np.cumsum(sizes[batch])[:-1]), strict=True)

    low, high = PREFETCH_ENTRIES
    each = map_ahead if entries.mean() >= low and entries.max() <= high else in_turn
    for _ in range(SWEEPS):
        before = picks.copy()
        visit_order = rng.permutation(n)
        batches = np.split(visit_order, _cuts(entries[visit_order]))
        with closing(each(cell_moments, batches)) as results:
            for c, moments in chain.from_iterable(results):
                residual -= chosen[c]
                values = moments @ (residual * slope)
                values += own_terms[members[c]]
                # Equal rows differ by rounding: take the first of values within the tie.
                best = int((values <= values.min() + tie).argmax())
                if picks[c] != members[c].start + best:
                    picks[c] = members[c].start + best
                    chosen[c] = moments[best] * scale
                residual += chosen[c]
        if np.mean(picks != before) <= MIN_MOVED:
            break
    return order[picks]


def _cuts(entries) -> np.ndarray:
    """Return where to cut a list of cells into batches of about `BATCH_ENTRIES` entries.

    Examples
    --------
    >>> _cuts(np.array([200_000, 4_000, 80_000, 900_000, 3]))
    array([2, 3])
    """
    return 1 + np.flatnonzero(np.diff(np.cumsum(entries) // BATCH_ENTRIES))
