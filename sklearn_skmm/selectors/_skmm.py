"""Stage two of Sketchy Moment Matching: selection by matching second moments."""

import warnings
from dataclasses import replace
from numbers import Integral, Real
from typing import ClassVar

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from sklearn_skmm.base import BaseSelector, Selection
from sklearn_skmm.core import _blocks, _components
from sklearn_skmm.core._balanced import cube, local_cube
from sklearn_skmm.core._blocks import rows_of
from sklearn_skmm.core._components import Components, Energies
from sklearn_skmm.core._draws import (
    ROUNDINGS,
    draw_rest,
    inclusion_probabilities,
    spread,
    systematic,
)
from sklearn_skmm.core._exemplar_layout import exemplar_cells
from sklearn_skmm.core._given_cells import cells_besides, draw_free_candidates
from sklearn_skmm.core._matching import MomentFeatures, match_in_cells
from sklearn_skmm.core._moments import Solution, solve
from sklearn_skmm.core._peak_memory import (
    peak_of_balanced_layout,
    peak_of_exemplar_layout,
    spread_exact_items,
)
from sklearn_skmm.core._recombination import recombine_moments
from sklearn_skmm.utils._sklearn import Interval, StrOptions
from sklearn_skmm.utils._validation import MAX_SEED

# A duality gap of this fraction of the objective is small enough, because the rounding changes the
# moments by far more.
RELATIVE_GAP = 1e-3
# Peak memory of these roundings next to X: arrays of its shape in its precision and in double
# precision, then vectors of N entries in its precision and in double precision.
ARRAYS_AT_PEAK = {"spread": (5, 0, 2, 5), "cube": (3, 3, 2, 5), "local_cube": (4, 3, 6, 5)}


class SkMMSelector(BaseSelector):
    r"""Select n samples whose second moment matches that of all N samples.

    Use it to choose which samples to label or to finetune on, if you can afford only n of them.
    Labels are not needed. It aims to be a safe default: not worse than random sampling on any task,
    and close to the best of the other selectors.

    The rows of X are per-sample gradients of a model, usually sketched by `GradientSketcher`, or
    any other features. The second moment (the uncentred covariance) measures how strongly each
    direction is represented in them. A model trained on the coreset goes wrong in directions that
    the other samples have and the coreset lacks, so the coreset should represent every direction as
    strongly as all samples do.

    This is stage two of Sketchy Moment Matching [1]_. It has two steps.

    *Matching* finds a weight for each sample. Let
    :math:`\tilde\Sigma = X^\top X / N = V \Lambda V^\top`. The constraint
    :math:`\tilde\Sigma \preceq c_S \tilde\Sigma_S` controls the variance of the excess risk. It is
    relaxed by assuming that the two matrices commute. The weights s then solve

    .. math:: \min_s \sum_j \max(0, \lambda_j / c_S - v_j^\top X^\top \mathrm{diag}(s) X v_j)^2
              \quad\text{s.t.}\quad 0 \le s_i \le 1/n,\ \sum_i s_i = 1,

    which is the paper's problem with :math:`\gamma_j \ge 1/c_S` in closed form. The weights say how
    much mass the coreset should place in each region.

    *Rounding* turns the weights into n samples. It has the larger effect: for :math:`c_S \ge 1`
    uniform weights are optimal, so what makes a coreset better than random sampling happens in the
    rounding.

    *The default rounding*, ``"cells"``, is not in the paper. It divides the samples into n cells of
    similar mass and small scatter. It then selects one sample per cell so that the first and second
    moments of the n selected samples match those of all samples. In short: the weights say how
    much mass, balanced cells say where, and moments say which.

    Each cell holds between :math:`1/(\kappa n)` and :math:`\kappa/n` of the weight, where
    :math:`\kappa` is `balance`. For any non-negative function, the mean over the coreset is then
    within a factor :math:`\kappa` of the mean in which each selected sample counts by the mass of
    its cell. Let :math:`\Sigma_w` be the second moment of that weighted coreset. Then
    :math:`\Sigma_w \preceq \kappa \Sigma_S`, so the unweighted coreset has at most
    :math:`\kappa` times the :math:`c_S` of the weighted one.

    *The paper's algorithm* starts the solver at a random vertex of the feasible set, which is n
    samples drawn uniformly, and draws the coreset from the weights that the solver reaches::

        SkMMSelector(n, c_S=0.999, init="vertex", rounding="choice")

    Parameters
    ----------
    {n_to_select}
        None with a budget.
    {budget}
        Then as many cells are laid out as the budget pays for, and cheap samples of a cell are
        preferred to expensive ones: a cost of the mean counts as much as the mean distance from
        the centre (see `centrality`). Only with ``rounding="cells"``.
    c_S : float, default=1.0
        Constant of the moment constraint. It must be at least n / N, because no coreset of n
        samples has a second moment larger than N / n times that of all samples. The smaller c_S is,
        the more the coreset has to exceed all samples in each direction. For c_S well below 1 the
        relaxation can drop whole clusters, because it looks at each direction alone.
    init : {"uniform", "vertex"}, default="uniform"
        Where the solver starts: with weight 1 / N on every sample, or with weight 1 / n on each of
        n samples drawn uniformly, as in the paper. For c_S >= 1 the uniform weights are already a
        minimiser.
    rounding : str, default="cells"
        How the coreset is found from s, one of

        - ``"cells"``: one sample from each of n balanced cells. The moments of the selected samples
          approximate those of the weighted samples, while each selected sample stays near the
          centre of its cell; `centrality` is the trade-off. If only the moments count, use
          ``"cube"``, which matches them more closely.
        - ``"exemplar"``: exemplars that cover the samples, which is weighted facility location.
        - ``"cube"``: random sampling that keeps the second moment along each direction on its
          target, up to the rounding of k + 1 samples (Deville & Tillé 2004) [2]_.
        - ``"spread"``: random sampling that avoids selecting neighbours together, the local pivotal
          method (Grafström et al. 2012) [3]_.
        - ``"local_cube"``: random sampling with both properties (Grafström & Tillé 2013) [4]_.
        - ``"recombine"``: n samples with weights, `sample_weight_`, whose moments are exactly those
          of the weighted samples, by Carathéodory's theorem (Litterer & Lyons 2012) [5]_. They are
          the first moments and the squares along each direction if n is at least 2 k + 1, products
          of two directions too if n is larger, and those of the leading directions if it is
          smaller. Fit with the weights; without them nothing is matched.
        - ``"systematic"``: systematic sampling (Madow 1949).
        - ``"choice"``: sequential sampling without replacement, as in the published code.

        ``"cube"``, ``"spread"``, ``"local_cube"``, ``"systematic"`` and ``"choice"`` are random
        samples. All of them but the last include sample i with probability exactly n·s_i.

        For s proportional to 1…8 and n = 4, the sample with n·s = 8/9 is included by
        ``"choice"`` in about 73 % of the draws:

        >>> import numpy as np
        >>> from sklearn_skmm.core._draws import choice, systematic
        >>> s = np.arange(1, 9) / 36
        >>> for draw in (choice, systematic):
        ...     rng = np.random.RandomState(0)
        ...     picks = np.concatenate([draw(s, 4, rng) for _ in range(2000)])
        ...     print(draw.__name__, (np.bincount(picks) / 2000).round(2)[[0, 3, 7]])
        choice [0.16 0.48 0.73]
        systematic [0.11 0.43 0.9 ]

    balance : float, default=4.0
        Bound :math:`\kappa \ge 1` on the mass of the cells, with ``rounding="cells"``. With 1 all
        cells have the same mass. With infinity they are the cells of k-means, which cover the data
        best and give rare samples the same influence as common ones. Masses are whole samples: the
        bounds are rounded outwards, and with unequal `weights_` a mass may miss them by the weights
        of a few samples.
    centrality : float, default=1.0
        Trade-off between central samples (large) and matched moments (0), with
        ``rounding="cells"``. It is the penalty for leaving the centre of a cell, in units of the
        mean cost of the cell's samples, relative to the mismatch of the moments. With infinity the
        sample nearest to the mean of each cell is selected.
    n_candidates : int or None, default=16
        Number of samples drawn at random from each cell, of which one is selected, with
        ``rounding="cells"``. With 1 the coreset is a stratified random sample, with None every
        sample is a candidate. Moments and centres do not describe everything that a model may
        need, and a few random candidates keep the selection from following them too closely.
    max_iter : int, default=2000
        Maximum number of iterations of the solver.
    tol : float, default=1e-7
        Tolerance of the solver, which stops when the duality gap is at most
        :math:`tol \cdot \sum_j (\lambda_j / c_S)^2`, or a thousandth of the objective. The default
        is small because a direction whose eigenvalue is 1/1000 of the largest can be a cluster, but
        contributes only 1/1000² to the sum.
    {stratify}
    {random_state}

    Attributes
    ----------
    {sample_indices_ascending}
    sample_weight_ : ndarray of shape (n_to_select,)
        The number of samples that each selected one represents: the mass of its cell times N. With
        the random roundings N / n for each. Train without them: the moments of the unweighted
        coreset are matched.
    labels_ : ndarray of shape (N,), dtype int
        Position in `sample_indices_` of the selected sample in whose cell each sample is, or -1 if
        the weight of the sample is zero. Only with ``rounding="cells"`` or ``"exemplar"``.
    weights_ : ndarray of shape (N,)
        The weights s, in the precision of X.
    objective_ : float
        The objective at s, in units of squared eigenvalues.
    dual_gap_ : float
        Duality gap: an upper bound on how far `objective_` is above the minimum, in the same units.
    n_iter_ : int
        Number of iterations of the solver, at least 1.
    eigenvalues_ : ndarray of shape (k,)
        The eigenvalues :math:`\lambda_j` that are not rounding errors, largest first. k is the
        numerical rank of X.
    components_ : ndarray of shape (k, n_features)
        The eigenvectors :math:`v_j`.
    {fitted}

    Warns
    -----
    ConvergenceWarning
        If the duality gap is above its tolerance when the iterations end.

    Raises
    ------
    ValueError
        In `fit`, if `n_to_select` is above N or `c_S` is below n / N.

    See Also
    --------
    GradientSketcher : Stage one, the sketched gradients.
    UniformSelector : Random sampling, the baseline.

    Notes
    -----
    The same seed gives the same samples on any number of threads. With ``stratify=True`` the
    weights sum to one within each class, and the solver's other attributes are lists with one entry
    for each class.

    *Time.* The second moment takes one pass over X, O(N m²), and its eigenvectors m³. The solver
    takes a few passes of O(N m) from ``init="uniform"``, and hundreds from ``init="vertex"``. With
    the defaults it is not needed, because uniform weights are known to be optimal. ``"recombine"``
    takes O(N n) and O(n³) log N. ``"systematic"`` and ``"choice"`` are O(N). ``"cells"`` is O(N n
    m) for n up to 256, most of it on a subsample of 8,192. For larger n it divides the samples into
    up to 256 coarse cells first, with the cells within these, so that a sample is compared with
    some 300 centres at most. ``"exemplar"`` is O(N n m) if n is at most 256 or n·N at most 2²⁵, and
    otherwise O(N √n m). ``"spread"`` computes O(1,024 N) distances, and ``"cube"`` takes O(N m²).

    *Memory.* X is read in place, in blocks of rows, if it is float32 or float64 and its rows are
    contiguous; a read-only ``numpy.memmap`` works too. float32 stays float32, with sums in double
    precision. Next to X there are about ten vectors of N entries. If X has up to 512 MiB, as many
    bytes again hold values that the solver, and then the layout of cells, would otherwise recompute
    in each pass. For larger X the solver holds at most 512 MiB and half the bytes of X.

    ``"cells"`` needs up to 200 MiB besides, whatever N is, for blocks of rows and of distances.
    ``"exemplar"`` needs as much for the costs of a subsample, and for n above 2,048 (above 25,000
    if n·N is above 2²⁵) the need grows with n. ``"spread"`` needs five arrays like X and, for up to
    4,096 samples, all of their distances twice. ``"cube"`` needs three arrays like X and three in
    double precision, ``"local_cube"`` four and three. Sparse X needs at least one array of shape
    (N, k), and `stratify` a copy of X.

    References
    ----------
    .. [1] Y. Dong, H. Phan, X. Pan, Q. Lei. "Sketchy Moment Matching: Toward Fast and Provable
       Data Selection for Finetuning". NeurIPS 2024. :arxiv:`2407.06120`
    .. [2] J.-C. Deville, Y. Tillé. "Efficient balanced sampling: the cube method". Biometrika 91,
       2004.
    .. [3] A. Grafström, N. L. P. Lundström, L. Schelin. "Spatially balanced sampling through the
       pivotal method". Biometrics 68, 2012.
    .. [4] A. Grafström, Y. Tillé. "Doubly balanced spatial sampling with spreading and restitution
       of auxiliary totals". Environmetrics 24, 2013.
    .. [5] C. Litterer, T. Lyons. "High order recombination and an application to cubature on Wiener
       space". Annals of Applied Probability 22, 2012. In groups: M. Tchernychova. "Carathéodory
       cubature measures". DPhil thesis, University of Oxford, 2016.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_skmm import SkMMSelector
    >>> X = np.random.RandomState(0).normal(size=(200, 8))
    >>> selector = SkMMSelector(20, random_state=0).fit(X)
    >>> selector.sample_indices_.shape
    (20,)
    >>> bool(selector.dual_gap_ <= 1e-7 * np.sum(selector.eigenvalues_**2))
    True
    """

    _dtypes: ClassVar[list[type]] = [np.float64, np.float32]
    _kept: ClassVar[float] = 1.0
    _parameter_constraints: ClassVar[dict[str, list]] = {
        **BaseSelector._parameter_constraints,
        "n_to_select": [*BaseSelector._parameter_constraints["n_to_select"], None],
        "budget": [Interval(Real, 0, None, closed="neither"), None],
        "c_S": [Interval(Real, 0, None, closed="neither")],
        "init": [StrOptions({"vertex", "uniform"})],
        "rounding": [
            StrOptions(
                {"cells", "exemplar", "cube", "spread", "local_cube", "recombine", *ROUNDINGS}
            )
        ],
        "balance": [Interval(Real, 1, None, closed="both")],
        "centrality": [Interval(Real, 0, None, closed="both")],
        "n_candidates": [Interval(Integral, 1, None, closed="left"), None],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        n_to_select=None,
        *,
        budget=None,
        c_S=1.0,
        init="uniform",
        rounding="cells",
        balance=4.0,
        centrality=1.0,
        n_candidates=16,
        max_iter=2000,
        tol=1e-7,
        stratify=False,
        random_state=None,
    ):
        self.n_to_select = n_to_select
        self.budget = budget
        self.c_S = c_S
        self.init = init
        self.rounding = rounding
        self.balance = balance
        self.centrality = centrality
        self.n_candidates = n_candidates
        self.max_iter = max_iter
        self.tol = tol
        self.stratify = stratify
        self.random_state = random_state

    def _peak_bytes(self, n_samples, n_features, n, itemsize):
        size = n_samples * n_features * itemsize
        # The solver's squared components, of which half are kept beyond `KEEP_BYTES`, one block of
        # them, and vectors.
        held = min(size, _components.KEEP_BYTES + size // 2)
        block = itemsize * min(n_samples * n_features, _blocks.BLOCK)
        solver = 7 * itemsize * n_samples
        if self.init != "uniform" or self.c_S < 1.0:
            solver += held + block
        if self.rounding in ROUNDINGS:
            return solver
        if self.rounding in ARRAYS_AT_PEAK:
            like_X, double, vectors, double_vectors = ARRAYS_AT_PEAK[self.rounding]
            vectors = vectors * itemsize + 8 * double_vectors
            peak = like_X * size + n_samples * (double * 8 * n_features + vectors)
            # The last samples need all of their distances, next to the components.
            last = size + 2 * itemsize * spread_exact_items(n_samples) ** 2
            return max(peak, last) if self.rounding == "spread" else peak
        components = size if size <= _components.KEEP_BYTES else 0
        if self.rounding == "recombine":
            # Groups of samples, and the directions in which their masses can move.
            own = 8 * (4 * n_samples + 12 * n * n + 2 * n * 4096)
            return max(solver, components + own)
        vectors = n_samples * (5 * itemsize + 3 * 8)
        layout = (
            peak_of_exemplar_layout(n_samples, n_features, n)
            if self.rounding == "exemplar"
            else peak_of_balanced_layout(n_samples, n_features, n, itemsize, self.n_candidates)
        )
        return max(solver, components + vectors + layout)

    def _select(self, X, n, reference, rng, step, *, sample_weight=None, selected=None, cost=None):
        if cost is None:
            return self._select_n(X, n, reference, rng, step, sample_weight, selected)
        if self.rounding != "cells":
            raise ValueError(
                "SkMMSelector supports a budget with rounding='cells' only. Got "
                f"rounding={self.rounding!r}."
            )
        # The largest number of cells whose samples the budget pays for, by bisection.
        few, most, seed = 0, n, int(rng.randint(MAX_SEED))
        free = np.ones(X.shape[0], dtype=bool)
        if selected is not None:
            free[selected] = False
        cheapest = int(np.flatnonzero(free)[cost[free].argmin()])
        best = None
        n = min(n, max(1, int(self.budget / cost[free].mean())))
        while few < most:
            trial = self._select_n(
                X, n, reference, np.random.RandomState(seed), step, sample_weight, selected, cost
            )
            if cost[trial.indices].sum() <= self.budget:
                best, few = trial, n
            else:
                most = n - 1
            n = (few + most + 1) // 2
        if best is None:
            best = replace(trial, indices=np.array([cheapest]), sample_weight=None, labels=None)
            best.given_weight = None
        return best

    def _select_n(self, X, n, reference, rng, step, sample_weight, selected, cost=None):
        given = np.empty(0, dtype=int) if selected is None else selected
        n_samples, n_all = X.shape[0], n + len(given)
        if len(given) and self.rounding in ("exemplar", "recombine"):
            raise ValueError(
                f"SkMMSelector with rounding={self.rounding!r} does not support selected. Use "
                "rounding='cells', or FacilityLocationSelector."
            )
        if n_all < n_samples and self.c_S < n_all / n_samples:
            raise ValueError(
                f"The 'c_S' parameter of SkMMSelector must be at least n / N = {n_all} / "
                f"{n_samples} = {n_all / n_samples:.6g} to select n={n_all} samples. Got "
                f"{self.c_S} instead. Increase c_S or decrease n_to_select."
            )
        spectrum = reference.spectrum
        uniform = np.full(n_samples, 1.0 / n_samples, dtype=X.dtype)
        capped = False
        if sample_weight is not None:
            # No sample can have more weight than a selected one.
            pi = inclusion_probabilities(sample_weight, n_all)
            uniform[:] = pi / n_all
            capped = bool(pi.max() >= 1.0)
        if self.init == "uniform" and self.c_S >= 1.0 and not capped and reference.is_of(X):
            solution = Solution(uniform, 0.0, 0.0, 0)  # the moments are those of X
        else:
            solution = self._solve(X, spectrum, uniform, n, given, rng, step)
        threshold = max(
            self.tol * float(np.square(spectrum.relative / self.c_S).sum()),
            RELATIVE_GAP * solution.objective,
        )
        # Fourth powers outside the range of floats become infinite or zero.
        unit = spectrum.unit
        objective, dual_gap, limit = (
            value * unit * unit * unit * unit
            for value in (solution.objective, solution.dual_gap, threshold)
        )
        if solution.dual_gap > threshold:
            warnings.warn(
                f"The solver stopped after {solution.n_iter} iterations with a duality gap of "
                f"{dual_gap:.3g}, above the tolerance of {limit:.3g}. Increase max_iter or tol.",
                ConvergenceWarning,
                stacklevel=2,
            )
        selection = self._round(X, spectrum, solution.s, n, given, cost, rng, step)
        selection.per_sample["weights_"] = solution.s
        selection.attributes = {
            "objective_": objective,
            "dual_gap_": dual_gap,
            "n_iter_": max(1, solution.n_iter),
            "eigenvalues_": spectrum.eigenvalues,
            "components_": spectrum.eigenvectors.T,
        }
        return selection

    def _solve(self, X, spectrum, uniform, n, given, rng, step):
        """Return weights of all samples; those of the given ones are 1 / (n + n_given)."""
        n_samples, n_all, relative = X.shape[0], n + len(given), spectrum.relative
        rest = np.delete(np.arange(n_samples), given)
        s = np.zeros(n_samples, dtype=X.dtype)
        if self.init == "vertex" and uniform.min() < uniform.max():
            s[draw_rest(uniform, n, rng, given)[0]] = 1.0 / n
        elif self.init == "vertex":
            s[rest[rng.choice(len(rest), size=n, replace=False)]] = 1.0 / n
        elif len(given):
            s[rest] = inclusion_probabilities(uniform[rest], n) / n
        else:
            s[:] = uniform
        params = {"max_iter": self.max_iter, "tol": self.tol, "rtol": RELATIVE_GAP, "step": step}
        if not len(given):
            energies = Energies(X, spectrum.eigenvectors, spectrum.unit)
            return solve(energies, relative, n, self.c_S, s, **params)
        # The others share what the given samples leave of the moments, and of the weight.
        own = np.square(Components(X, spectrum.eigenvectors, spectrum.unit)[given]).sum(axis=0)
        left = (relative * n_all - self.c_S * own) / n
        others = Energies(rows_of(X, rest), spectrum.eigenvectors, spectrum.unit)
        solution = solve(others, left, n, self.c_S, s[rest], **params)
        s[rest], s[given] = solution.s * (n / n_all), 1.0 / n_all
        share = (n / n_all) ** 2
        return Solution(s, solution.objective * share, solution.dual_gap * share, solution.n_iter)

    def _round(self, X, spectrum, s, n, given, cost, rng, step) -> Selection:
        """Return the coreset, the mass that each of its samples represents, and for whom."""
        drawn = self.rounding not in ("cells", "exemplar") or not spectrum.eigenvalues.size
        directions, unit = spectrum.eigenvectors, spectrum.unit
        if drawn:
            members = None
            if len(given):
                members = np.delete(np.arange(len(s)), given)
                s = inclusion_probabilities(s[members], n) / n
            if self.rounding == "recombine":
                items, weights = recombine_moments(
                    Components(X, directions, unit), spectrum.relative, s, n, rng, step
                )
                return Selection(items, len(s) * weights)
            if self.rounding in ROUNDINGS or not spectrum.eigenvalues.size:  # X is zero
                items = ROUNDINGS.get(self.rounding, systematic)(s, n, rng)
            else:
                items = self._draw(Components(X, directions, unit, members=members)[:], s, n, rng)
            return Selection(items if members is None else members[items])
        # At least n samples have a weight, none of which is above 1 / n.
        s = s.copy()
        s[given] = np.maximum(s[given], np.finfo(s.dtype).tiny)
        support = np.flatnonzero(s)
        weight = s[support] / s.sum(dtype=np.float64).astype(s.dtype)
        members = support if len(support) < len(s) else None
        components = Components(X, directions, unit, members=members)
        place = np.searchsorted(support, given)
        if self.rounding == "exemplar":
            cells = exemplar_cells(components, weight, n, rng, step)
            indices, labels = cells.exemplars, cells.labels
        else:
            cells = cells_besides(components, weight, n, place, self.balance, rng, step)
            if cost is not None:
                away, price = cells.costs, cost[support]
                away = away / (float(away.mean(dtype=np.float64)) or 1.0)
                cells = cells._replace(costs=away + price / price.mean())
            features = MomentFeatures(components, spectrum.relative, n + len(given))
            target = features.mean(weight)
            if len(given):
                target = ((n + len(given)) * target - features[place].sum(axis=0)) / n
            candidates = draw_free_candidates(cells.labels, weight, n, self.n_candidates, rng)
            indices = match_in_cells(features, target, cells, self.centrality, rng, candidates)
            labels = cells.labels
        return _of_cells(support, indices, labels, weight, place, len(s))

    def _draw(self, P, s, n, rng):
        """Draw n samples with a rounding that looks at their components."""
        if self.rounding == "spread":
            return spread(s, n, P, rng)
        if self.rounding == "cube":
            return cube(s, n, np.square(P), rng)
        return local_cube(s, n, np.square(P), P, rng)


def _of_cells(support, picks, labels, weight, given, n_samples) -> Selection:
    """Return the selection of these picks, one for each of the first cells of the support."""
    n = len(picks)
    n_cells = max(n, int(labels.max()) + 1)
    # Equal weights are counted, which has no rounding errors.
    equal = weight.min() == weight.max()
    mass = np.bincount(labels, weights=None if equal else weight, minlength=n_cells)
    mass = mass * (n_samples / mass.sum())
    order = np.argsort(picks)
    position = np.full(n_cells, -1)
    position[order] = np.arange(n)
    labels_of_all = np.full(n_samples, -1)
    labels_of_all[support] = position[labels]
    given_weight = None
    if len(given):
        own = labels[given]
        given_weight = mass[own] / np.bincount(own, minlength=n_cells)[own]
    return Selection(support[picks[order]], mass[order], given_weight, labels=labels_of_all)
