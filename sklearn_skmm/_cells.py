"""Cell moment matching: exemplars make cells, then one sample of each cell matches the moments.

Pure functions of arrays. Exemplars cover the data and sit in the middle of what they stand for, but
they shrink the second moment, which hurts regression. A draw that matches the moments picks the
rims of the data, which hurts classification. Here each answers the other.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from sklearn.metrics import pairwise_distances_argmin_min
from sklearn.utils.extmath import row_norms

from sklearn_skmm._exemplars import greedy_exemplars, median_distance
from sklearn_skmm._moments import ridge_of_dimension
from sklearn_skmm._rounding import inclusion_probabilities, systematic

# Samples farther from the mean than this multiple of the median are drawn in to it before cells
# are made: an outlier is then no farther from the others than they are from each other, and gets
# no cell of its own. On most embeddings no sample is as far.
REACH = 2.0
# Half of the median distance, as bandwidth of the kernel that says whether a sample is covered.
BANDWIDTH = 0.5
# A cell that holds more than this multiple of its share of the mass is split. Where many samples
# lie close together next to a few that lie far apart, as gradients of confident predictions do,
# cells would otherwise leave half of the data to one pick.
SHARES = 2.0
# Greedy exemplars look at all pairs. Of more samples, so many, or so many for each pick, stand for
# all of them when the cells are laid out.
SUBSAMPLE, SUBSAMPLE_PER_PICK = 8192, 4
SWEEPS = 3


class Cells(NamedTuple):
    """A partition of the samples, one cell for each exemplar."""

    exemplars: np.ndarray  # (n,) positions, each in its own cell
    labels: np.ndarray  # (N,) the cell of each sample
    costs: np.ndarray  # (N,) 0 at the exemplar, up to 1 far from it


def draw_in(P: np.ndarray, s: np.ndarray) -> np.ndarray:
    """Return the rows about their mean, those beyond `REACH` median distances scaled to there.

    Examples
    --------
    >>> import numpy as np
    >>> P = np.array([[-2.0], [-1.0], [1.0], [-1.0], [1.0], [2.0], [30.0], [-30.0]])
    >>> draw_in(P, np.full(8, 1 / 8)).ravel()
    array([-2., -1.,  1., -1.,  1.,  2.,  3., -3.])
    """
    P = P - s @ P
    radius = np.sqrt(row_norms(P, squared=True))
    reach = REACH * (float(np.median(radius)) or float(radius.mean()))
    return P * np.minimum(1.0, reach / np.maximum(radius, np.finfo(float).tiny))[:, None]


def exemplar_cells(
    P: np.ndarray,
    s: np.ndarray,
    n: int,
    rng: np.random.RandomState,
    step: Callable[[], bool] = lambda: False,
) -> Cells:
    r"""Lay out n cells around greedy exemplars of the weighted samples.

    Lowers :math:`\sum_i s_i \min_{j \in S} (1 - \exp(-\|p_i - p_j\|^2 / (2 h^2)))`, with h half
    the median distance, over the rows after `draw_in`.

    Parameters
    ----------
    P : ndarray of shape (N, k)
        Samples.
    s : ndarray of shape (N,)
        Positive weights, which sum to one.
    n : int
        Number of cells, at most N.
    rng : RandomState
        Draws the subsamples.
    step : callable, default=does nothing
        Called once per exemplar.

    Returns
    -------
    cells : Cells
        The exemplars in order of selection, and the cell and cost of each sample.

    Examples
    --------
    >>> import numpy as np
    >>> P = np.array([[0.0], [0.1], [5.0], [5.1], [5.2]])
    >>> cells = exemplar_cells(P, np.full(5, 1 / 5), 2, np.random.RandomState(0))
    >>> cells.labels
    array([1, 1, 0, 0, 0])
    """
    return _greedy_cells(P, s, n, rng, step)[0]


def _greedy_cells(P, s, n, rng, step) -> tuple[Cells, np.ndarray, float]:
    """Return n cells, with the rows after `draw_in` and the bandwidth they were laid out by."""
    P = draw_in(P, s)
    h = BANDWIDTH * median_distance(P, rng)
    return _around(P, h, _exemplars(P, h, s, n, rng, step)), P, h


def _exemplars(P, h, s, n, rng, step) -> np.ndarray:
    """Return n greedy exemplars, of many samples from a subsample."""
    n_samples = len(P)
    size = max(SUBSAMPLE, SUBSAMPLE_PER_PICK * n)
    if n_samples <= size:
        return greedy_exemplars(P, n, bandwidth=h, weight=s * n_samples, step=step).indices
    # A draw with probabilities π and weights s / π has the expectations of all samples.
    pi = inclusion_probabilities(s, size)
    rows = systematic(pi / pi.sum(), size, rng)
    weight = s[rows] / pi[rows]
    weight *= size / weight.sum()
    return rows[greedy_exemplars(P[rows], n, bandwidth=h, weight=weight, step=step).indices]


def _around(P, h, exemplars) -> Cells:
    """Give each sample to its nearest exemplar."""
    labels, distances = pairwise_distances_argmin_min(P, P[exemplars], metric="sqeuclidean")
    labels[exemplars], distances[exemplars] = np.arange(len(exemplars)), 0.0
    return Cells(exemplars, labels, -np.expm1(-distances / (2.0 * h**2)))


def bounded_cells(
    P: np.ndarray,
    s: np.ndarray,
    n: int,
    rng: np.random.RandomState,
    step: Callable[[], bool] = lambda: False,
) -> Cells:
    """Lay out n cells around exemplars, splitting those that hold too much of the mass.

    The first exemplars are kept, as many as leave a pick for every `SHARES` / n of the mass of each
    cell. A cell with several picks is laid out again on its own scale, and so on.

    Parameters
    ----------
    P, s, n, rng, step
        As for `exemplar_cells`.

    Returns
    -------
    cells : Cells
        n cells.

    Examples
    --------
    >>> import numpy as np
    >>> P = np.array([[0.0]] * 3 + [[1.0]] * 3 + [[90.0], [170.0], [250.0], [330.0]])
    >>> rng = np.random.RandomState(0)
    >>> cells = exemplar_cells(P, np.full(10, 1 / 10), 5, rng)
    >>> np.bincount(cells.labels)
    array([6, 1, 1, 1, 1])
    >>> cells = bounded_cells(P, np.full(10, 1 / 10), 5, rng)
    >>> np.bincount(cells.labels)
    array([3, 3, 2, 1, 1])
    """
    exemplars = np.empty(n, dtype=int)
    labels, costs = np.zeros(len(P), dtype=int), np.zeros(len(P))
    todo = [(np.arange(len(P)), 0, n)]  # members, the first of their cells, the number of these
    while todo:
        members, first, count = todo.pop()
        weight = s[members] / s[members].sum()
        cells, counts = _layout(P[members], weight, count, rng, step)
        starts = first + np.concatenate([[0], np.cumsum(counts)[:-1]])
        labels[members], costs[members] = starts[cells.labels], cells.costs
        exemplars[starts] = members[cells.exemplars]
        for c in np.flatnonzero(counts > 1):
            todo.append((members[cells.labels == c], int(starts[c]), int(counts[c])))
        step = lambda: False  # noqa: E731 (only the first layout counts as progress)
    return Cells(exemplars, labels, costs)


def _layout(P, s, n, rng, step) -> tuple[Cells, np.ndarray]:
    """Return at most n cells, and how many picks each is to have, n in all."""
    cells, P, h = _greedy_cells(P, s, n, rng, step)
    if not cells.costs.any():
        return cells, np.ones(n, dtype=int)  # equal rows cannot be split further
    while True:
        mass = np.bincount(cells.labels, weights=s)
        sizes = np.bincount(cells.labels)
        counts = np.clip(np.ceil(mass * (n / SHARES) - 1e-9), 1, sizes).astype(int)
        if counts.sum() <= n or len(counts) <= 2:
            break
        kept = min(len(counts) - 1, n - int((counts - 1).sum()))
        cells = _around(P, h, cells.exemplars[: max(2, kept)])
    while counts.sum() != n:
        if counts.sum() < n:
            counts[np.argmax(np.where(counts < sizes, mass / counts, -np.inf))] += 1
        else:
            counts[np.argmin(np.where(counts > 1, mass / counts, np.inf))] -= 1
    return cells, counts


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
    alpha = ridge_of_dimension(eigenvalues, 0.5 * min(n, 0.9 * eigenvalues.size))
    share = eigenvalues / (eigenvalues + alpha)
    root = np.sqrt(share / share.sum())
    # In units of the roots of the eigenvalues, so that no square over- or underflows.
    Q = P / np.sqrt(eigenvalues)
    return np.hstack([root * np.square(Q), root * Q])


def match_in_cells(
    F: np.ndarray,
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
    F : ndarray of shape (N, q)
        Features, from `moment_features`.
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
    order = np.argsort(cells.labels, kind="stable")
    starts = np.searchsorted(cells.labels[order], np.arange(n + 1))
    F = F[order] / n
    penalty = cells.costs[order] * (centrality / n / (float(cells.costs.mean()) or 1.0))
    # Terms of the objective that do not depend on the other cells.
    alone = row_norms(F, squared=True) + penalty
    tie = 1e-12 * float(alone.max())
    picks = starts[:-1] + np.floor(rng.uniform(size=n) * np.diff(starts)).astype(int)
    gap = F[picks].sum(axis=0) - target
    for _ in range(SWEEPS):
        before = picks.copy()
        for c in rng.permutation(n):
            members = slice(starts[c], starts[c + 1])
            gap -= F[picks[c]]
            values = 2.0 * (F[members] @ gap) + alone[members]
            # Equal rows differ by rounding: the first of them, whatever that says.
            picks[c] = starts[c] + np.argmax(values <= values.min() + tie)
            gap += F[picks[c]]
        if np.array_equal(picks, before):
            break
    return order[picks]
