"""Sketchy Moment Matching."""

import warnings
from numbers import Integral, Real
from typing import ClassVar

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from sklearn_skmm.base import BaseSelector, Selection
from sklearn_skmm.core import _blocks, _components
from sklearn_skmm.core._balanced import cube, local_cube
from sklearn_skmm.core._components import Components, Energies
from sklearn_skmm.core._draws import ROUNDINGS, spread, systematic
from sklearn_skmm.core._layout import bounded_cells, exemplar_cells
from sklearn_skmm.core._matching import MomentFeatures, match_in_cells
from sklearn_skmm.core._moments import solve
from sklearn_skmm.core._peak_memory import last_at_once, peak_of_layout
from sklearn_skmm.utils._sklearn import Interval, StrOptions

# An objective proved to be this close to the minimum, relative to it, is close enough: the
# coreset is drawn from the weights, and the draw moves the moments by far more.
RELATIVE_GAP = 1e-3
# What these roundings hold at their peak next to X, in arrays of its shape like it and in double
# precision, and in vectors like it and in double precision.
ARRAYS_AT_PEAK = {"spread": (5, 0, 2, 5), "cube": (3, 3, 2, 5), "local_cube": (4, 3, 6, 5)}


class SkMMSelector(BaseSelector):
    r"""Select the n samples whose second moment matches that of all N.

    Stage two of Sketchy Moment Matching [1]_. Rows of X are sketched per-sample gradients,
    :math:`\tilde\Sigma = X^\top X / N = V \Lambda V^\top`. The constraint
    :math:`\tilde\Sigma \preceq c_S \tilde\Sigma_S`, which controls the variance of the excess
    risk, is relaxed by taking the two to commute, and weights s are found that solve

    .. math:: \min_s \sum_j \max(0, \lambda_j / c_S - v_j^\top X^\top \mathrm{diag}(s) X v_j)^2
              \quad\text{s.t.}\quad 0 \le s_i \le 1/n,\ \sum_i s_i = 1,

    the paper's problem with :math:`\gamma_j \ge 1/c_S` in closed form. The weights say how much
    mass the coreset is to put where; the rounding turns them into n samples. It decides most: for
    :math:`c_S \ge 1` uniform weights are optimal, and what makes a coreset better than a uniform
    draw happens in the rounding.

    *The default* goes beyond the paper. ``rounding="cells"`` lays out n cells around exemplars that
    cover the samples, and picks one sample of each cell so that the first and second moments of
    the n picks match those of all samples.

    *The paper's algorithm* starts from a random vertex, a uniform draw of n samples, and draws
    from the weights that the solver reaches from there::

        SkMMSelector(n, init="vertex", rounding="choice")

    Parameters
    ----------
    n_to_select : int or float
        How many samples to select; a float in (0, 1] is a share of the samples.
    c_S : float, default=0.999
        Constant of the moment constraint, at least n / N: no coreset of n samples has a larger
        second moment than N / n times that of all. The smaller c_S, the more the coreset has to
        exceed the population in each direction. For c_S well below 1 the relaxation can drop
        whole clusters, since it looks at each direction alone.
    init : {"uniform", "vertex"}, default="uniform"
        Where the solver starts: 1 / N on all, or n samples drawn uniformly with weight 1 / n each,
        as in the paper. For c_S >= 1 the former is a minimiser.
    rounding : str, default="cells"
        How the coreset is found from s, one of

        - ``"cells"``: one sample of each of n cells around exemplars, so that the first and second
          moments of the picks come near those of the weighted samples without leaving the middle
          of the cells; `centrality` weighs the two. Where the moments alone count, ``"cube"`` is
          nearer to them. Cells that hold more than twice their share of the weight are split.
        - ``"exemplar"``: the exemplars themselves, weighted facility location.
        - ``"cube"``: a draw that keeps the second moment along each direction on its target, up
          to the rounding of k + 1 samples (Deville & Tillé 2004) [2]_.
        - ``"spread"``: a draw that does not take neighbours together, the local pivotal method
          (Grafström et al. 2012) [3]_.
        - ``"local_cube"``: both of these (Grafström & Tillé 2013) [4]_.
        - ``"systematic"``: a draw (Madow 1949).
        - ``"choice"``: one draw after the other without replacement, as the published code does.

        All draws but ``"choice"`` include sample i with probability exactly n·s_i.

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

    centrality : float, default=0.3
        With ``rounding="cells"``, what it costs to leave the middle of a cell, in units of the mean
        cost of its samples, against a mismatch of the moments. With 0 only the moments count, with
        infinity the exemplars are taken.
    max_iter : int, default=2000
        Bound on the solver's iterations.
    tol : float, default=1e-7
        The solver stops when the duality gap is at most
        :math:`tol \cdot \sum_j (\lambda_j / c_S)^2`, or a thousandth of the objective. It is
        small by default: a direction with an eigenvalue of 1/1000 of the largest contributes
        1/1000² to the sum, and may be a cluster.
    stratify : bool, default=False
        Match and select within each class of y, in proportion to its size.
    random_state : int, RandomState instance or None, default=None
        Seeds the start and the rounding.

    Attributes
    ----------
    sample_indices_ : ndarray of shape (n_to_select,), dtype int
        Positions of the selected samples, ascending.
    sample_weight_ : ndarray of shape (n_to_select,)
        N / n for each: it is the plain mean over the coreset whose moments are matched. With
        ``rounding="exemplar"`` the mass that each exemplar stands for.
    weights_ : ndarray of shape (N,)
        The weights s, in the precision of X.
    objective_ : float
        The objective at s, in units of the eigenvalues squared.
    dual_gap_ : float
        Upper bound on how far `objective_` is above the minimum, same units.
    n_iter_ : int
        Iterations of the solver, at least 1.
    eigenvalues_ : ndarray of shape (k,)
        :math:`\lambda_j` above rounding, largest first; k is the numerical rank of X.
    components_ : ndarray of shape (k, n_features)
        The directions :math:`v_j`.
    n_samples_seen_ : int
        Number of samples in `fit`.
    strata_ : ndarray
        Classes of y, with `stratify=True` only. Then the weights sum to one within each class,
        and the solver's other attributes are lists with an entry for each class.
    n_features_in_ : int
        Number of features in `fit`.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the features, where X has string column names.

    Warns
    -----
    ConvergenceWarning
        If the gap is above tol when the iterations end.

    Raises
    ------
    ValueError
        In `fit`, if n_to_select is above N or c_S is below n / N.

    See Also
    --------
    GradientSketcher : Stage one, the sketched gradients.
    UniformSelector : The baseline.

    Notes
    -----
    *Time.* One pass over X for its second moment, O(N m²), and m³ for the eigenvectors. The solver
    takes a few passes of O(N m) from ``init="uniform"``, and hundreds from ``init="vertex"``.
    ``"systematic"`` and ``"choice"`` are O(N). ``"cells"`` and ``"exemplar"`` take O(N n m) for up
    to 256 picks, and for more if n·N is at most 2²⁵. Beyond, they lay out coarse cells first, and
    the picks within these, in O(N √n m). ``"spread"`` looks at O(1,024 N) distances, and ``"cube"``
    takes O(N m²).

    *Memory.* X is read where it is, blocks of rows at a time, if it is float32 or float64 and its
    rows lie one after the other; a read-only ``numpy.memmap`` will do. float32 stays float32, with
    sums in double precision. Next to X there are about ten vectors of N entries, and what the
    solver, and then the layout of cells, would else compute for each pass: all of it, as many bytes
    as X has, up to 512 MiB; beyond, the solver holds at most 512 MiB and half the bytes of X.
    ``"cells"`` and ``"exemplar"`` take up to 200 MiB besides, whatever N is, for the costs of a
    subsample of 8,192. Those of up to 256 picks are less, and of more than 2,048 picks, or 25,000
    if n·N is above 2²⁵, grow with n. ``"spread"`` needs five arrays like X, and for up to 4,096
    samples all of their distances, twice. ``"cube"`` needs three like X and three in double
    precision, ``"local_cube"`` four and three. Sparse X needs one of shape (N, k) at least, and
    `stratify` a copy of X.

    The same seed gives the same samples on any number of threads.

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

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_skmm import SkMMSelector
    >>> X = np.random.RandomState(0).normal(size=(200, 8))
    >>> selector = SkMMSelector(20, random_state=0).fit(X)
    >>> selector.sample_indices_.shape
    (20,)
    >>> bool(selector.dual_gap_ <= 1e-7 * np.sum((selector.eigenvalues_ / 0.999) ** 2))
    True
    """

    _dtypes: ClassVar[list[type]] = [np.float64, np.float32]
    _kept: ClassVar[float] = 1.0
    _parameter_constraints: ClassVar[dict[str, list]] = {
        **BaseSelector._parameter_constraints,
        "c_S": [Interval(Real, 0, None, closed="neither")],
        "init": [StrOptions({"vertex", "uniform"})],
        "rounding": [StrOptions({"cells", "exemplar", "cube", "spread", "local_cube", *ROUNDINGS})],
        "centrality": [Interval(Real, 0, None, closed="both")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        n_to_select,
        *,
        c_S=0.999,
        init="uniform",
        rounding="cells",
        centrality=0.3,
        max_iter=2000,
        tol=1e-7,
        stratify=False,
        random_state=None,
    ):
        self.n_to_select = n_to_select
        self.c_S = c_S
        self.init = init
        self.rounding = rounding
        self.centrality = centrality
        self.max_iter = max_iter
        self.tol = tol
        self.stratify = stratify
        self.random_state = random_state

    def _peak_bytes(self, n_samples, n_features, n, itemsize):
        size = n_samples * n_features * itemsize
        # The solver's squared components, of more than `KEEP` bytes half, one block and vectors.
        held = min(size, _components.KEEP + size // 2)
        block = itemsize * min(n_samples * n_features, _blocks.BLOCK)
        solver = held + block + 7 * itemsize * n_samples
        if self.rounding in ROUNDINGS:
            return solver
        if self.rounding in ARRAYS_AT_PEAK:
            like_X, double, vectors, double_vectors = ARRAYS_AT_PEAK[self.rounding]
            vectors = vectors * itemsize + 8 * double_vectors
            peak = like_X * size + n_samples * (double * 8 * n_features + vectors)
            # The last items play among all of their distances, next to the components.
            last = size + 2 * itemsize * last_at_once(n_samples) ** 2
            return max(peak, last) if self.rounding == "spread" else peak
        components = size if size <= _components.KEEP else 0
        vectors = n_samples * (5 * itemsize + 3 * 8)
        return max(solver, components + vectors + peak_of_layout(n_samples, n_features, n))

    def _select(self, X, n, reference, rng, step):
        n_samples = X.shape[0]
        if n < n_samples and self.c_S < n / n_samples:
            raise ValueError(
                f"The 'c_S' parameter must be at least n / N = {n} / {n_samples} = "
                f"{n / n_samples:.6g} for a coreset of n={n} samples, got c_S={self.c_S}. "
                "Raise c_S or lower n_to_select."
            )
        eigenvalues, eigenvectors = reference.spectrum
        s = np.full(n_samples, 1.0 / n_samples, dtype=X.dtype)
        if self.init == "vertex":
            s[:] = 0.0
            s[rng.choice(n_samples, size=n, replace=False)] = 1.0 / n
        # Lengths in units of the largest, so that no square over- or underflows.
        unit = float(np.sqrt(eigenvalues.max(initial=0.0))) or 1.0
        relative = eigenvalues / unit**2
        solution = solve(
            Energies(X, eigenvectors, unit),
            relative,
            n,
            self.c_S,
            s,
            max_iter=self.max_iter,
            tol=self.tol,
            rtol=RELATIVE_GAP,
            step=step,
        )
        threshold = max(
            self.tol * float(np.square(relative / self.c_S).sum()),
            RELATIVE_GAP * solution.objective,
        )
        # Fourth powers may be beyond the range of floats: they are then infinite or zero.
        objective, dual_gap, limit = (
            value * unit * unit * unit * unit
            for value in (solution.objective, solution.dual_gap, threshold)
        )
        if solution.dual_gap > threshold:
            warnings.warn(
                f"The solver stopped after {solution.n_iter} iterations at a dual gap of "
                f"{dual_gap:.3g}, above {limit:.3g}. Increase max_iter or tol.",
                ConvergenceWarning,
                stacklevel=2,
            )
        indices, counts = self._round(X, eigenvectors, unit, relative, solution.s, n, rng, step)
        return Selection(
            indices,
            sample_weight=counts,
            per_sample={"weights_": solution.s},
            attributes={
                "objective_": objective,
                "dual_gap_": dual_gap,
                "n_iter_": max(1, solution.n_iter),
                "eigenvalues_": eigenvalues,
                "components_": eigenvectors.T,
            },
        )

    def _round(self, X, directions, unit, eigenvalues, s, n, rng, step):
        """Return the coreset and what each member stands for, or None if all the same."""
        if self.rounding in ROUNDINGS or not eigenvalues.size:  # all samples are equal to zero
            return ROUNDINGS.get(self.rounding, systematic)(s, n, rng), None
        components = Components(X, directions, unit)
        if self.rounding == "spread":
            return spread(s, n, components[:], rng), None
        if self.rounding == "cube":
            return cube(s, n, np.square(components[:]), rng), None
        if self.rounding == "local_cube":
            return local_cube(s, n, np.square(components[:]), components[:], rng), None
        # At least n samples have a weight, none of which is above 1 / n.
        support = np.flatnonzero(s > 0.0)
        weight = s[support] / s.sum(dtype=np.float64).astype(s.dtype)
        if len(support) < len(s):
            components = Components(X, directions, unit, members=support)
        if self.rounding == "exemplar":
            cells = exemplar_cells(components, weight, n, rng, step)
            order = np.argsort(cells.exemplars)
            mass = np.bincount(cells.labels, weights=weight, minlength=n) * len(s)
            return support[cells.exemplars[order]], mass[order]
        cells = bounded_cells(components, weight, n, rng, step)
        moment_features = MomentFeatures(components, eigenvalues, n)
        members = match_in_cells(
            moment_features, moment_features.mean(weight), cells, self.centrality, rng
        )
        return np.sort(support[members]), None
