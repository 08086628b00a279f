"""V-optimal selection by exchanges, with a lower bound from a convex relaxation."""

from contextlib import nullcontext
from numbers import Integral, Real
from typing import ClassVar

import numpy as np

from sklearn_skmm.base import BaseSelector, Selection
from sklearn_skmm.core._design import (
    default_alpha,
    least_alpha,
    objective,
    relax,
    round_largest,
    whiten,
)
from sklearn_skmm.core._exchange import PAIRS_PER_BLOCK, exchange, greedy
from sklearn_skmm.core._prices import Prices
from sklearn_skmm.utils._sklearn import Interval, StrOptions
from sklearn_skmm.utils._threads import one_thread

# With fewer entries than this, one thread is faster than several.
ONE_THREAD_ENTRIES = 10**6


class VOptimalSelector(BaseSelector):
    r"""Select the n samples that minimise the variance of ridge regression over all N.

    Use it for a linear model that you trust, where label noise is the only concern. It reports how
    close the selection is to the optimum. It selects the most extreme samples, which mislead most
    where the linear model is wrong. The selection is not random.

    With :math:`\Sigma = X^\top X / N` and :math:`\Sigma_S = X_S^\top X_S / n` it minimises

    .. math:: V(S) = \mathrm{tr}\,\Sigma (\Sigma_S + \alpha I)^{-1},

    the criterion of V-optimal design [1]_. Sketchy Moment Matching instead relaxes
    :math:`\Sigma \preceq c_S \Sigma_S` by assuming that the two matrices commute.

    The relaxation to weights :math:`0 \le s_i \le 1/n,\ \sum_i s_i = 1` is convex and is solved
    first. Its duality gap gives a lower bound on V for every subset. Its n largest weights give a
    subset, which is improved by exchanging a selected sample for another one [2]_ until no exchange
    helps.

    The bound is tight if n is several times the number k of directions. On 20,000 Gaussian samples
    with k = 64 the gap is 1.5 % at n = 8 k and 20 % at n = 2 k. The gap does not tell how much of
    it is due to the bound and how much to the selection.

    Parameters
    ----------
    {n_to_select}
        None with a budget.
    {budget}
        Then the greedy selection runs twice, by the decrease of V per cost and by the decrease
        alone, and the better result is kept. There are no exchanges, and the certificate is for
        as many samples of any cost.
    alpha : float or None, default=None
        The ridge, in units of the eigenvalues of :math:`\Sigma`. None means the largest one, at
        most tr(Σ) / N, at which the effective dimension
        :math:`\sum_j \lambda_j / (\lambda_j + \alpha)` is n, or 0.9 of the rank if n is more.
        tr(Σ) / N is the threshold of the paper's intrinsic dimension. Too small a ridge costs
        little. Too large a ridge hides the directions below it, and with them whole clusters, and
        can ruin the selection.
    init : {"relaxation", "greedy"} or array-like of shape (n_init,), default="relaxation"
        Where the exchanges start: the largest weights of the relaxation, a greedy selection, or
        distinct positions, at most n, which a greedy selection completes. The result is never
        worse than its start.
    max_iter : int, default=100
        Maximum number of sweeps of exchanges. 0 keeps the start.
    tol : float, default=1e-4
        An exchange is made if it lowers V by more than this fraction of V.
    {stratify}

    Attributes
    ----------
    {sample_indices_ascending}
    {sample_weight_equal}
    weights_ : ndarray of shape (N,)
        The weights s of the relaxation.
    objective_ : float
        V(S), which has no unit.
    lower_bound_ : float
        A lower bound on V of every subset of n samples.
    gap_ : float
        ``(objective_ - lower_bound_) / objective_``: V(S) is proved to be within this fraction of
        itself of the minimum.
    alpha_ : float
        The ridge. It is at least 1e-12 of the largest eigenvalue and, if n is below the rank, 1e-6
        of the largest eigenvalue that n samples cannot cover, so that rounding errors do not decide
        the selection.
    n_iter_ : int
        Number of sweeps of exchanges. If it is below `max_iter`, the last sweep found no exchange
        to make.
    {fitted}

    Raises
    ------
    ValueError
        If `init` holds positions that are not distinct, not in the pool or more than n, or if it
        is an array and ``stratify=True``. With an array, the pool of `transform` must have those
        positions too.

    See Also
    --------
    SkMMSelector : The relaxation of the paper.
    sklearn_skmm.diagnostics.v_optimality : V of any subset.

    Notes
    -----
    With ``stratify=True`` the weights sum to one within each class, and `objective_`,
    `lower_bound_`, `gap_`, `alpha_` and `n_iter_` are lists with one entry for each class.

    An iteration of the solver takes O(Nk²), where k is the rank of X. A sweep of exchanges takes
    the same, and O(k) for each pair of a selected sample and a sample in a working set of
    8 max(n, k). At the end all samples are compared with all selected ones, O(Nnk), so that no
    exchange with any sample improves the result.

    The computation is in double precision, with three arrays like X next to it and six vectors of
    N entries. There are up to six arrays if most samples join the working set, for example if the
    samples are copies of a few.

    References
    ----------
    .. [1] Z. Allen-Zhu, Y. Li, A. Singh, Y. Wang. "Near-optimal discrete optimization for
       experimental design: a regret minimization approach". Mathematical Programming 186, 2021.
    .. [2] V. V. Fedorov. "Theory of optimal experiments". Academic Press, 1972.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_skmm import VOptimalSelector
    >>> X = np.random.RandomState(0).normal(size=(1000, 5))
    >>> selector = VOptimalSelector(50).fit(X)
    >>> selector.sample_indices_.shape
    (50,)
    >>> bool(selector.gap_ < 0.02)
    True
    """

    _parameter_constraints: ClassVar[dict[str, list]] = {
        **BaseSelector._parameter_constraints,
        "n_to_select": [*BaseSelector._parameter_constraints["n_to_select"], None],
        "budget": [Interval(Real, 0, None, closed="neither"), None],
        "alpha": [Interval(Real, 0, None, closed="neither"), None],
        "init": [StrOptions({"relaxation", "greedy"}), "array-like"],
        "max_iter": [Interval(Integral, 0, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
    }

    def __init__(
        self,
        n_to_select=None,
        *,
        budget=None,
        alpha=None,
        init="relaxation",
        max_iter=100,
        tol=1e-4,
        stratify=False,
    ):
        self.n_to_select = n_to_select
        self.budget = budget
        self.alpha = alpha
        self.init = init
        self.max_iter = max_iter
        self.tol = tol
        self.stratify = stratify

    def _peak_bytes(self, n_samples, n_features, n, itemsize):
        # The rows in the problem's coordinates, and either two more arrays like that or three
        # blocks of pairs of a selected sample and another one, with their masks.
        pairs = 28 * min(n_samples * n, PAIRS_PER_BLOCK)
        return max(8 * n_samples * (3 * n_features + 6), 8 * n_samples * n_features + pairs)

    def _select(self, X, n, reference, rng, step, *, sample_weight=None, selected=None, cost=None):
        given = np.empty(0, dtype=int) if selected is None else selected
        if cost is not None:
            free = np.delete(cost, given)
            # As many as the budget pays for at the mean cost: the ridge is for this number.
            n = min(n, max(1, round(self.budget / float(free.mean()))))
        n += len(given)
        alpha = reference.learn(
            "alpha", lambda X, y: self._resolve_alpha(reference.spectrum.eigenvalues, n, X.shape[0])
        )
        problem = whiten(X, reference.spectrum, alpha)
        start = given if isinstance(self.init, str) else self._check_init(n, X.shape[0], given)
        # For thousands of products of small matrices, several threads cost more than they save.
        small = problem.rows.size < ONE_THREAD_ENTRIES
        with one_thread() if small else nullcontext():
            if cost is not None:
                indices, n_iter = self._within_budget(problem, given, cost, n, step), 0
                n = len(indices)
            relaxation = relax(problem, n, step=step)
            if cost is None:
                if isinstance(self.init, str) and self.init == "relaxation":
                    order = round_largest(relaxation, X.shape[0])
                    order = order[~np.isin(order, given)]
                    indices = np.concatenate([given, order])[:n]
                else:
                    indices = greedy(problem, n, start, step=step)
                indices, n_iter = exchange(
                    problem,
                    indices,
                    n_fixed=len(given),
                    max_iter=self.max_iter,
                    tol=self.tol,
                    step=step,
                )
        value = objective(problem, indices)
        lower = min(value, relaxation.lower_bound)  # equal up to rounding at the optimum
        return Selection(
            np.sort(indices[len(given) :]),
            per_sample={"weights_": relaxation.weights},
            attributes={
                "objective_": value,
                "lower_bound_": lower,
                "gap_": (value - lower) / value if value else 0.0,
                "alpha_": alpha,
                "n_iter_": n_iter,
            },
        )

    def _within_budget(self, problem, given, cost, n, step):
        """Return the given samples and those of the better of two greedy selections."""
        if not isinstance(self.init, str):
            raise ValueError(
                "The 'init' parameter of VOptimalSelector must be 'relaxation' or 'greedy' with a "
                "budget. Got an array of positions instead."
            )
        runs = [
            greedy(problem, n, given, prices=Prices(cost, self.budget, relative), step=step)
            for relative in (True, False)
        ]
        return min(runs, key=lambda indices: objective(problem, indices, n))

    def _resolve_alpha(self, values, n, n_samples):
        alpha = default_alpha(values, n, n_samples) if self.alpha is None else float(self.alpha)
        return max(alpha, least_alpha(values, n))

    def _check_init(self, n, n_samples, given):
        init = np.asarray(self.init)
        if init.ndim != 1 or not init.size or not np.issubdtype(init.dtype, np.integer):
            raise ValueError(
                "The 'init' parameter of VOptimalSelector must be 'relaxation', 'greedy' or a "
                "non-empty 1-d array of integer positions. Got an array of shape "
                f"{init.shape} and dtype {init.dtype} instead."
            )
        if self.stratify or isinstance(self.n_to_select, dict):
            raise ValueError(
                "The 'init' parameter of VOptimalSelector must be 'relaxation' or 'greedy' with "
                "stratify=True. Got an array of positions instead."
            )
        if init.min() < 0 or init.max() >= n_samples:
            raise ValueError(
                "The 'init' parameter of VOptimalSelector must contain positions from 0 to "
                f"{n_samples - 1}, because X has n_samples={n_samples}. Got positions from "
                f"{init.min()} to {init.max()} instead."
            )
        if len(np.unique(init)) < len(init):
            raise ValueError(
                "The 'init' parameter of VOptimalSelector must contain distinct positions. Got "
                "repeated positions instead."
            )
        if len(given):
            raise ValueError(
                "The 'init' parameter of VOptimalSelector must be 'relaxation' or 'greedy' with "
                "selected samples. Got an array of positions instead."
            )
        if len(init) > n:
            raise ValueError(
                f"The 'init' parameter of VOptimalSelector must contain at most n={n} positions. "
                f"Got {len(init)} instead."
            )
        return init
