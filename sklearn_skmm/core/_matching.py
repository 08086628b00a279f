"""Cell moment matching: one sample of each cell, so that the moments of the picks match.

Pure functions of arrays. Exemplars cover the data and sit in the middle of what they stand for, but
they shrink the second moment, which hurts regression. A draw that matches the moments picks the
rims of the data, which hurts classification. Here each answers the other.
"""

from contextlib import closing
from itertools import chain, pairwise

import numpy as np
from sklearn.utils.extmath import row_norms

from sklearn_skmm.core._blocks import each_block, row_blocks, sum_of_blocks, weighted_rows
from sklearn_skmm.core._cells import Cells, by_cell
from sklearn_skmm.core._moments import ridge_of_dimension
from sklearn_skmm.utils._threads import ahead, in_turn

# At most so many passes over the cells, and none after one that moves less than this share of the
# picks: with thousands of cells the third changes the objective by less than a hundredth.
SWEEPS, SETTLED = 3, 0.02
# Entries of features that are computed together, cell by cell: they stay in the processor's cache.
TOGETHER = 2**18
# Those of the next cells are computed in the meantime, if cells have at least so many on average,
# for with fewer the threads wait for each other, and none has more than so many: that takes memory.
AHEAD = 2**17, 2**21


def direction_weights(eigenvalues: np.ndarray, n: int) -> np.ndarray:
    """Return how much each direction counts in `moment_features`, with sum 1.

    Examples
    --------
    >>> import numpy as np
    >>> direction_weights(np.array([4.0, 4.0]), 1)
    array([0.5, 0.5])
    """
    alpha = ridge_of_dimension(eigenvalues, 0.5 * min(n, 0.9 * eigenvalues.size))
    share = eigenvalues / (eigenvalues + alpha)
    return share / share.sum()


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
            return np.hstack([weighted_rows(s[rows], np.square(P)), weighted_rows(s[rows], P)])

        return self.scale * sum_of_blocks(of_block, row_blocks(*self.shape), self.shape[1:])


class _Given:
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
        Features. Those of one cell at a time are looked at.
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
    features = F if isinstance(F, MomentFeatures) else _Given(F)
    penalty = centrality / n / (float(cells.costs.mean(dtype=np.float64)) or 1.0)
    # Terms of the objective that do not depend on the other cells.
    alone = np.empty(len(order))

    def fill(rows):
        alone[rows] = features.squared_norms(order[rows]) / n**2
        alone[rows] += cells.costs[order[rows]] * penalty

    each_block(fill, row_blocks(*features.shape))
    tie = 1e-12 * float(alone.max())
    picks = starts[:-1] + np.floor(rng.uniform(size=n) * np.diff(starts)).astype(int)
    chosen = features[order[picks]] / n
    gap = chosen.sum(axis=0) - target
    share, slope = features.scale / n, 2.0 / n * features.scale
    sizes, own = np.diff(starts), [slice(*ends) for ends in pairwise(starts.tolist())]
    entries = sizes * features.shape[1]

    def look(some):
        """Return pairs of each of these cells and the moments of its members."""
        moments = features.moments(np.concatenate([order[own[c]] for c in some]))
        return zip(some.tolist(), np.split(moments, np.cumsum(sizes[some])[:-1]), strict=True)

    each = ahead if entries.mean() >= AHEAD[0] and entries.max() <= AHEAD[1] else in_turn
    for _ in range(SWEEPS):
        before = picks.copy()
        visits = rng.permutation(n)
        with closing(each(look, np.split(visits, _cuts(entries[visits])))) as looked:
            for c, moments in chain.from_iterable(looked):
                gap -= chosen[c]
                values = moments @ (gap * slope)
                values += alone[own[c]]
                # Equal rows differ by rounding: the first of them, whatever that says.
                best = int((values <= values.min() + tie).argmax())
                if picks[c] != own[c].start + best:
                    picks[c] = own[c].start + best
                    chosen[c] = moments[best] * share
                gap += chosen[c]
        if np.mean(picks != before) <= SETTLED:
            break
    return order[picks]


def _cuts(entries) -> np.ndarray:
    """Return where to cut a list of cells, so that `TOGETHER` entries are in each piece or so.

    Examples
    --------
    >>> _cuts(np.array([200_000, 4_000, 80_000, 900_000, 3]))
    array([2, 3])
    """
    return 1 + np.flatnonzero(np.diff(np.cumsum(entries) // TOGETHER))
