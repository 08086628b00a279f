"""Cell moment matching: one sample of each cell, so that the moments of the picks match.

Pure functions of arrays. Exemplars cover the data and sit in the middle of what they stand for, but
they shrink the second moment, which hurts regression. A draw that matches the moments picks the
rims of the data, which hurts classification. Here each answers the other.
"""

from contextlib import closing
from itertools import chain, pairwise

import numpy as np
from sklearn.utils.extmath import row_norms

from sklearn_skmm.core._blocks import each_block, row_blocks, sum_of_blocks, weighted_block_sum
from sklearn_skmm.core._cells import Cells, by_cell
from sklearn_skmm.core._moments import ridge_of_dimension
from sklearn_skmm.utils._threads import in_turn, map_ahead

# At most so many passes over the cells, and none after one that moves less than this share of the
# picks: with thousands of cells the third changes the objective by less than a hundredth.
SWEEPS, MIN_MOVED = 3, 0.02
# Entries of features that are computed together, cell by cell: they stay in the processor's cache.
BATCH_ENTRIES = 2**18
# Those of the next cells are computed in the meantime, if cells have at least so many on average,
# for with fewer the threads wait for each other, and none has more than so many: that takes memory.
PREFETCH_ENTRIES = 2**17, 2**21


def direction_weights(eigenvalues: np.ndarray, n: int) -> np.ndarray:
    """Return how much each direction counts in `moment_features`, with sum 1.

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
    r"""Return features whose mean holds the first and the diagonal of the second moment.

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
        \sqrt{\lambda_j}`: each moment is judged relative to its eigenvalue. A direction counts
        by :math:`w_j \propto \lambda_j / (\lambda_j + \alpha)`, the share of it that ridge
        regression fits, with the ridge at which the effective dimension is half of min(n, 0.9 k).
        By their share of the trace instead, all would count little next to an offset.

    Examples
    --------
    >>> import numpy as np
    >>> moment_features(np.array([[2.0], [-2.0]]), np.array([4.0]), 1).mean(axis=0)
    array([1., 0.])
    """
    return MomentFeatures(P, eigenvalues, n)[:]


class MomentFeatures:
    """The rows of `moment_features`, computed when asked for, in double precision.

    They are `moments` of the rows times a `scale` for each column.

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
        """Return the squares of the components and the components."""
        P = self.P[rows]
        k = P.shape[1]
        both = np.empty((len(P), 2 * k))
        np.square(P, out=both[:, :k], dtype=np.float64)
        both[:, k:] = P
        return both

    def __getitem__(self, rows) -> np.ndarray:
        return self.moments(rows) * self.scale

    def squared_norms(self, rows) -> np.ndarray:
        """Return |F_i|² for each of the rows."""
        squares = np.square(self.P[rows], dtype=np.float64)
        squares /= self.unit**2
        weight = self.root**2
        return squares @ weight + np.square(squares) @ weight

    def mean(self, s: np.ndarray) -> np.ndarray:
        """Return Σ_i s_i F_i."""

        def of_block(rows):
            P = self.P[rows]
            return np.hstack(
                [weighted_block_sum(s[rows], np.square(P)), weighted_block_sum(s[rows], P)]
            )

        return self.scale * sum_of_blocks(of_block, row_blocks(*self.shape), self.shape[1:])


class _ArrayFeatures:
    """Features that are an array."""

    def __init__(self, F: np.ndarray):
        self.F, self.shape, self.scale = F, F.shape, 1.0

    def __getitem__(self, rows):
        return self.F[rows]

    moments = __getitem__

    def squared_norms(self, rows):
        return row_norms(self.F[rows], squared=True)


def match_in_cells(
    F: MomentFeatures | np.ndarray,
    target: np.ndarray,
    cells: Cells,
    centrality: float,
    rng: np.random.RandomState,
) -> np.ndarray:
    r"""Pick one sample of each cell so that the mean of F over the picks is near the target.

    Coordinate descent, cell by cell, on

    .. math:: \Big\|\frac{1}{n} \sum_c F_{i_c} - t\Big\|^2
              + \rho\, \frac{1}{n} \sum_c \frac{cost_{i_c}}{\overline{cost}}

    from a random member of each cell.

    Parameters
    ----------
    F : MomentFeatures or ndarray of shape (N, q)
        Features. They are read one cell at a time.
    target : ndarray of shape (q,)
        The mean t that is to be matched.
    cells : Cells
        The partition.
    centrality : float
        :math:`\rho`; with infinity the picks are the exemplars.
    rng : RandomState
        Draws the start and the order of the cells.

    Returns
    -------
    picks : ndarray of shape (n,), dtype int
        One position for each cell.

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
    if np.isinf(centrality):
        return cells.exemplars.copy()
    # Sorted by cell, so that the members of a cell are a slice.
    order, starts = by_cell(cells.labels, n)
    features = F if isinstance(F, MomentFeatures) else _ArrayFeatures(F)
    cost_weight = centrality / n / (float(cells.costs.mean(dtype=np.float64)) or 1.0)
    # Terms of the objective that do not depend on the other cells.
    own_terms = np.empty(len(order))

    def fill(rows):
        own_terms[rows] = features.squared_norms(order[rows]) / n**2
        own_terms[rows] += cells.costs[order[rows]] * cost_weight

    each_block(fill, row_blocks(*features.shape))
    tie = 1e-12 * float(own_terms.max())
    picks = starts[:-1] + np.floor(rng.uniform(size=n) * np.diff(starts)).astype(int)
    chosen = features[order[picks]] / n
    residual = chosen.sum(axis=0) - target
    scale, slope = features.scale / n, 2.0 / n * features.scale
    sizes, members = np.diff(starts), [slice(*ends) for ends in pairwise(starts.tolist())]
    entries = sizes * features.shape[1]

    def cell_moments(batch):
        """Return pairs of each of these cells and the moments of its members."""
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
                # Equal rows differ by rounding: the first of them, whatever that says.
                best = int((values <= values.min() + tie).argmax())
                if picks[c] != members[c].start + best:
                    picks[c] = members[c].start + best
                    chosen[c] = moments[best] * scale
                residual += chosen[c]
        if np.mean(picks != before) <= MIN_MOVED:
            break
    return order[picks]


def _cuts(entries) -> np.ndarray:
    """Return where to cut a list of cells, so that `BATCH_ENTRIES` entries are in each piece or so.

    Examples
    --------
    >>> _cuts(np.array([200_000, 4_000, 80_000, 900_000, 3]))
    array([2, 3])
    """
    return 1 + np.flatnonzero(np.diff(np.cumsum(entries) // BATCH_ENTRIES))
