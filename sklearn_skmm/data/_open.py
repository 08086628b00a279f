"""The door: whatever holds samples is opened by one function."""

from typing import Any

from sklearn_skmm.data._arrays import ArraySource
from sklearn_skmm.data._dask import DaskSource
from sklearn_skmm.data._files import FileSource
from sklearn_skmm.data._labels import check_classes, read_labels
from sklearn_skmm.data._model_inputs import ModelInputSource
from sklearn_skmm.data._samples import Reader, Samples, Source, Strata
from sklearn_skmm.data._unread import UnreadSource
from sklearn_skmm.data._weights import read_costs, read_selected, read_weights

# The first that recognises X opens it. A new kind of container is a file, and an entry here.
SOURCES: tuple[type[Source], ...] = (
    FileSource,
    UnreadSource,
    DaskSource,
    ModelInputSource,
    ArraySource,
)


def open_samples(
    X: Any,
    y: Any = None,
    *,
    needs_y: bool = False,
    stratify: bool = False,
    sample_weight: Any = None,
    selected: Any = None,
    groups: Any = None,
    cost: Any = None,
    **wanted: Any,
) -> Samples:
    """Open what a user has: check it, cast it and say what is in it.

    Parameters
    ----------
    X : array-like, sparse matrix, DataFrame, memory map, Dask array or SamplesFile
        Samples. With ``rows=False`` also what torch reads: a tensor, mapping, data set or loader.
        With ``values=False`` any collection that has an order.
    y : array-like of shape (n_samples,) or None, default=None
        Labels. Read only if they are asked for.
    needs_y : bool, default=False
        Whether to read y as labels.
    stratify : bool, default=False
        Whether to read y as strata.
    sample_weight : array-like of shape (n_samples,) or None, default=None
        Nonnegative weights.
    selected : array-like of bool or int, or None, default=None
        Mask or positions of the samples that are in the coreset already.
    groups : array-like of shape (n_samples,) or None, default=None
        Labels of groups.
    cost : array-like of shape (n_samples,) or None, default=None
        Positive costs.
    **wanted : dict
        Fields of `Reader`: what the caller can work with.

    Returns
    -------
    samples : Samples
        The opened samples.

    Raises
    ------
    ValueError, TypeError
        If X or y cannot be used, in scikit-learn's wording.
    MemoryError
        If the reader would need more memory than is available.

    Examples
    --------
    >>> samples = open_samples([[1, 2], [3, 4], [5, 6]], ["a", "b", "a"], stratify=True)
    >>> samples.n_samples, samples.n_features, samples.dtype
    (3, 2, dtype('float64'))
    >>> [part.X.tolist() for part in samples.by_stratum()]
    [[[1.0, 2.0], [5.0, 6.0]], [[3.0, 4.0]]]
    """
    reader = Reader(**wanted)
    source = next(source for source in SOURCES if source.recognises(X, reader))
    samples = source.open(X, reader)
    if reader.pairwise:
        if samples.n_features != samples.n_samples:
            raise ValueError(
                f"{reader.name} must be a square matrix with metric='precomputed'. Got shape "
                f"{samples.X.shape} instead."
            )
        samples.pairwise = True
    owner = type(reader.estimator).__name__
    if stratify:
        y_strata = read_labels(y, samples.n_samples, f"{owner} that selects by class")
        check_classes(y_strata)
        samples.strata = Strata.of(y_strata)
    if needs_y:
        samples.y = read_labels(y, samples.n_samples, owner)
    if sample_weight is not None:
        samples.weight, samples.unit = read_weights(sample_weight, samples.n_samples)
    if selected is not None:
        samples.given = read_selected(selected, samples.n_samples)
    if groups is not None:
        samples.groups = read_labels(groups, samples.n_samples, owner, name="groups")
    if cost is not None:
        samples.cost = read_costs(cost, samples.n_samples)
    return samples
