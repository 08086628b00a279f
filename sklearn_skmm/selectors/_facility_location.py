"""Facility location: samples that represent all others."""

from numbers import Real
from typing import ClassVar

import numpy as np

from sklearn_skmm.base import BaseSelector, Selection
from sklearn_skmm.core._blocks import largest_entry
from sklearn_skmm.core._costs import BLOCK, median_distance, unit_rows
from sklearn_skmm.core._exemplars import greedy_exemplars, greedy_exemplars_precomputed
from sklearn_skmm.core._peak_memory import peak_of_exemplars
from sklearn_skmm.core._prices import Prices
from sklearn_skmm.utils._sklearn import Interval, StrOptions


class FacilityLocationSelector(BaseSelector):
    r"""Select the n samples that represent all samples best, greedily.

    Every sample is represented by the selected sample that is most similar to it, and samples are
    selected so that the total cost of this representation becomes small. Use it for classification
    of embeddings with few selected samples. On regression with outliers it can be worse than random
    sampling, and it compares all pairs of samples.

    Let :math:`c_{ij}` be the cost of representing sample i by sample j. Each step adds the sample
    that lowers :math:`\sum_i \min_{j \in S} c_{ij}` the most. This greedy selection reaches at
    least 1 − 1/e of the best possible saving [1]_. With the Gaussian kernel,
    :math:`c_{ij} = 1 - \exp(-\|x_i - x_j\|^2 / (2 h^2))`, it is MaxHerding [2]_. With distances it
    is greedy k-medoids, and CRAIG [3]_ if the rows are gradients. The evaluation is lazy [4]_ and
    works in blocks. It takes up to O(N²m) time, and O(Nm) memory plus at most 144 MiB for costs
    that are kept.

    Parameters
    ----------
    {n_to_select}
        None with a budget.
    {budget}
        Then the greedy selection runs twice, by the saving per cost and by the saving alone, and
        the better result is kept (Leskovec et al. 2007) [5]_. Not with ``metric="precomputed"``.
    metric : {"gaussian", "euclidean", "sqeuclidean", "cosine", "precomputed"}, default="gaussian"
        The cost. With "cosine" it is 1 minus the cosine similarity, and a row of zeros has
        similarity 0 to all rows but other rows of zeros. With "precomputed" X is a square matrix
        of finite similarities and the cost is 1 minus them: entry (i, j) is the similarity of
        sample i to sample j as its representative. It need not be symmetric. `score` is then not
        available, nor is `transform` on another pool.
    bandwidth : float or None, default=None
        Bandwidth h of the Gaussian kernel. None means half the median distance between the samples
        of `fit`, estimated on a random subsample.
    {stratify}
    random_state : int, RandomState instance or None, default=None
        Controls the subsample on which the bandwidth is estimated. Pass an int for the same
        selection in every call.

    Attributes
    ----------
    {sample_indices_in_order}
    sample_weight_ : ndarray of shape (n_to_select,)
        Number of samples that each selected sample represents best.
    labels_ : ndarray of shape (N,), dtype int
        Position in `sample_indices_` of the selected sample that represents each sample, or -1 if
        a sample in `selected` does.
    objective_ : float
        The mean cost :math:`\frac{1}{N}\sum_i \min_{j \in S} c_{ij}`. In it, samples count by
        their weights, and S contains the samples in `selected`.
    bandwidth_ : float
        The bandwidth h with ``metric="gaussian"``, nan otherwise.
    {fitted}

    See Also
    --------
    KMeansSelector : Finds centres first, then the samples nearest to them.
    KCenterSelector : Makes the largest distance small instead of the sum.

    Notes
    -----
    All pairs of samples are compared several times, so ten times as many samples take about a
    hundred times as long. For hundreds of thousands of samples use
    ``SkMMSelector(n, rounding="exemplar")``. It also lowers the cost with the Gaussian kernel, but
    searches for exemplars in a subsample, in O(N √n m) time.

    Next to X, memory is needed for two arrays like it in double precision, for 3 KiB per sample
    (6 KiB with Euclidean distances), and for the costs that are kept. For up to about 8,000
    samples, the costs of all pairs fit into 144 MiB and are kept. For more samples, the costs that
    are kept fill 144 MiB after some tens of selected samples.

    References
    ----------
    .. [1] G. L. Nemhauser, L. A. Wolsey, M. L. Fisher. "An analysis of approximations for
       maximizing submodular set functions". Mathematical Programming 14, 1978.
    .. [2] W. Bae, J. Noh, D. J. Sutherland. "Generalized coverage for more robust low-budget active
       learning". ECCV 2024.
    .. [3] B. Mirzasoleiman, J. Bilmes, J. Leskovec. "Coresets for data-efficient training of
       machine learning models". ICML 2020.
    .. [4] M. Minoux. "Accelerated greedy algorithms for maximizing submodular set functions". 1978.
    .. [5] J. Leskovec, A. Krause, C. Guestrin, C. Faloutsos, J. VanBriesen, N. Glance.
       "Cost-effective outbreak detection in networks". KDD 2007.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_skmm import FacilityLocationSelector
    >>> X = np.array([[0.0], [1.0], [2.0], [10.0], [11.0], [12.0]])
    >>> FacilityLocationSelector(2, bandwidth=1.0).fit_transform(X)
    array([1, 4])
    """

    _ordered: ClassVar[bool] = True
    _parameter_constraints: ClassVar[dict[str, list]] = {
        **BaseSelector._parameter_constraints,
        "n_to_select": [*BaseSelector._parameter_constraints["n_to_select"], None],
        "budget": [Interval(Real, 0, None, closed="neither"), None],
        "metric": [StrOptions({"gaussian", "euclidean", "sqeuclidean", "cosine", "precomputed"})],
        "bandwidth": [Interval(Real, 0, None, closed="neither"), None],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        n_to_select=None,
        *,
        budget=None,
        metric="gaussian",
        bandwidth=None,
        stratify=False,
        random_state=None,
    ):
        self.n_to_select = n_to_select
        self.budget = budget
        self.metric = metric
        self.bandwidth = bandwidth
        self.stratify = stratify
        self.random_state = random_state

    def _peak_bytes(self, n_samples, n_features, n, itemsize):
        if self.metric == "precomputed":
            return 8 * n_samples * (3 * BLOCK + 16)  # blocks of rows
        copy = 8 * n_samples * (n_features + 1) if self.metric == "cosine" else 0
        return copy + peak_of_exemplars(
            n_samples, n_features, 8 if self.metric == "euclidean" else 4
        )

    def _select(self, X, n, reference, rng, step, *, sample_weight=None, selected=None, cost=None):
        bandwidth = float("nan")
        if self.metric == "gaussian":
            bandwidth = self.bandwidth or 0.5 * reference.learn(
                "median", lambda X, y: median_distance(X, rng, weight=sample_weight)
            )
        options = {"weight": sample_weight, "start": selected, "step": step}
        select, rows = greedy_exemplars, X
        if self.metric == "precomputed":
            if cost is not None:
                raise ValueError(
                    "FacilityLocationSelector does not support a budget with metric='precomputed'."
                )
            _check_similarities(X)
            select = greedy_exemplars_precomputed
        elif self.metric == "cosine":
            # Half the squared distance of unit vectors is 1 minus their cosine.
            rows = unit_rows(X)
            rows *= 0.5**0.5
            options["metric"] = "sqeuclidean"
        else:
            # Outside these bounds the kernel is 0 or 1 anyway, but its exponent could overflow.
            smallest = max(1e-16 * largest_entry(X), 1e-152)
            options |= {"metric": self.metric, "bandwidth": min(max(bandwidth, smallest), 1e153)}
        if cost is None:
            result = select(rows, n, **options)
        else:
            # The better of both is never far from the best, while either alone may be.
            result = min(
                (
                    select(rows, n, prices=Prices(cost, self.budget, relative), **options)
                    for relative in (True, False)
                ),
                key=lambda found: found.objective,
            )
        n_given = 0 if selected is None else len(selected)
        return Selection(
            result.indices[n_given:],
            sample_weight=result.counts[n_given:],
            given_weight=result.counts[:n_given],
            labels=np.maximum(result.labels - n_given, -1),
            attributes={"objective_": result.objective, "bandwidth_": bandwidth},
        )


def _check_similarities(S):
    """Refuse a matrix of distances."""
    if len(S) > 1 and S.diagonal().max() <= S.min() < S.max():
        raise ValueError(
            "X must contain similarities with metric='precomputed', but no sample is more similar "
            "to itself than to any other. Of distances D pass -D."
        )
