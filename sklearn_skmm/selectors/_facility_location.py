"""Facility location: greedy exemplars."""

from numbers import Real
from typing import ClassVar

from sklearn_skmm.base import BaseSelector, Selection
from sklearn_skmm.core._blocks import largest_entry
from sklearn_skmm.core._costs import median_distance
from sklearn_skmm.core._exemplars import greedy_exemplars
from sklearn_skmm.core._peak_memory import peak_of_exemplars
from sklearn_skmm.utils._sklearn import Interval, StrOptions


class FacilityLocationSelector(BaseSelector):
    r"""Select the n samples that represent all samples best, greedily.

    With the cost :math:`c_{ij}` of letting j stand for i, each pick lowers
    :math:`\sum_i \min_{j \in S} c_{ij}` the most. Greedy selection reaches at least
    1 − 1/e of the best possible saving [1]_. With the Gaussian kernel,
    :math:`c_{ij} = 1 - \exp(-\|x_i - x_j\|^2 / (2 h^2))`, this is MaxHerding [2]_; with
    distances it is greedy k-medoids, and CRAIG [3]_ on gradients. Evaluation is lazy [4]_ and by
    blocks: cost up to O(N²m), memory O(Nm) and at most 144 MiB of kept costs.

    Parameters
    ----------
    n_to_select : int or float
        How many samples to select; a float in (0, 1] is a share of the samples.
    metric : {"gaussian", "euclidean", "sqeuclidean"}, default="gaussian"
        The cost.
    bandwidth : float or None, default=None
        h of the Gaussian kernel; None takes half the median distance between the samples of `fit`
        (over a random subsample).
    stratify : bool, default=False
        Select within each class of y, in proportion to its size.
    random_state : int, RandomState instance or None, default=None
        Seeds the subsample behind the bandwidth.

    Attributes
    ----------
    sample_indices_ : ndarray of shape (n_to_select,), dtype int
        Positions of the selected samples, in order of selection.
    sample_weight_ : ndarray of shape (n_to_select,)
        Number of samples that each selected sample represents best.
    objective_ : float
        The mean cost :math:`\frac{1}{N}\sum_i \min_{j \in S} c_{ij}`.
    bandwidth_ : float
        h, with ``metric="gaussian"``; else nan.
    n_samples_seen_ : int
        Number of samples in `fit`.
    strata_ : ndarray
        Classes of y, with `stratify=True` only.
    n_features_in_ : int
        Number of features in `fit`.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the features, where X has string column names.

    See Also
    --------
    KMeansSelector : Centres first, then samples.
    KCenterSelector : The largest distance instead of the sum.

    Notes
    -----
    All pairs of samples are looked at, several times, so that a tenfold N takes a hundredfold time.
    For hundreds of thousands use ``SkMMSelector(n, rounding="exemplar")``: it lowers the cost with
    the Gaussian kernel, too, but looks at a subsample for exemplars, in O(N √n m).

    Next to X there are two arrays like it in double precision, 3 KiB for each sample, 6 KiB with
    Euclidean distances, and the costs that are kept: those of all pairs where they fit into 144
    MiB, for about 8,000 samples, else what some tens of picks fill 144 MiB with.

    References
    ----------
    .. [1] G. L. Nemhauser, L. A. Wolsey, M. L. Fisher. "An analysis of approximations for
       maximizing submodular set functions". Mathematical Programming 14, 1978.
    .. [2] W. Bae, J. Noh, D. J. Sutherland. "Generalized coverage for more robust low-budget active
       learning". ECCV 2024.
    .. [3] B. Mirzasoleiman, J. Bilmes, J. Leskovec. "Coresets for data-efficient training of
       machine learning models". ICML 2020.
    .. [4] M. Minoux. "Accelerated greedy algorithms for maximizing submodular set functions". 1978.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_skmm import FacilityLocationSelector
    >>> X = np.array([[0.0], [1.0], [2.0], [10.0], [11.0], [12.0]])
    >>> FacilityLocationSelector(2, bandwidth=1.0).fit_transform(X)
    array([1, 4])
    """

    _parameter_constraints: ClassVar[dict[str, list]] = {
        **BaseSelector._parameter_constraints,
        "metric": [StrOptions({"gaussian", "euclidean", "sqeuclidean"})],
        "bandwidth": [Interval(Real, 0, None, closed="neither"), None],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        n_to_select,
        *,
        metric="gaussian",
        bandwidth=None,
        stratify=False,
        random_state=None,
    ):
        self.n_to_select = n_to_select
        self.metric = metric
        self.bandwidth = bandwidth
        self.stratify = stratify
        self.random_state = random_state

    def _peak_bytes(self, n_samples, n_features, n, itemsize):
        return peak_of_exemplars(n_samples, n_features, 8 if self.metric == "euclidean" else 4)

    def _select(self, X, n, reference, rng, step):
        bandwidth = float("nan")
        if self.metric == "gaussian":
            bandwidth = self.bandwidth or 0.5 * reference.learn(
                "median", lambda X, y: median_distance(X, rng)
            )
        # Beyond these bounds the kernel is 0 or 1 anyway, but its exponent out of range.
        smallest = max(1e-16 * largest_entry(X), 1e-152)
        bandwidth_in_range = min(max(bandwidth, smallest), 1e153)
        result = greedy_exemplars(X, n, metric=self.metric, bandwidth=bandwidth_in_range, step=step)
        return Selection(
            result.indices,
            sample_weight=result.counts,
            attributes={"objective_": result.objective, "bandwidth_": bandwidth},
        )
