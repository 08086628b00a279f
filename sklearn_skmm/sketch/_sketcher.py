"""Stage one: sketched per-sample gradients."""

from numbers import Integral
from os import PathLike
from typing import ClassVar

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin, clone
from sklearn.callback import CallbackSupportMixin, with_callbacks
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from sklearn_skmm.data._checks import check_values
from sklearn_skmm.data._dask import first_rows, is_dask
from sklearn_skmm.sketch._lazy import sketch_lazily
from sklearn_skmm.sketch._projection import BlockProjection, projection_for
from sklearn_skmm.sketch._sketch_plan import MAX_FORMED_ENTRIES, PlannedLayer, SketchPlan
from sklearn_skmm.utils._sklearn import Interval, StrOptions, _fit_context
from sklearn_skmm.utils._validation import MAX_SEED, all_or_nothing, computing_in_numpy


class GradientSketcher(
    ClassNamePrefixFeaturesOutMixin, TransformerMixin, CallbackSupportMixin, BaseEstimator
):
    r"""Sketch per-sample gradients of a pretrained model into m dimensions.

    Stage one of Sketchy Moment Matching [1]_. With :math:`G \in R^{N \times r}` the per-sample
    gradients and :math:`\Gamma \in R^{r \times m}` a Johnson–Lindenstrauss embedding with
    independent entries N(0, 1/m), `transform` returns :math:`G\Gamma`. There is one
    :math:`\Gamma` for each fitted sketcher, whatever the batch size.

    Parameters
    ----------
    m : int, default=64
        Sketch dimension. The theory asks for 11 times the intrinsic dimension of the gradients.
    model : torch.nn.Module or None, default=None
        The pretrained model, or a fitted skorch net. It is used in evaluation mode and comes back
        in the mode, on the device and with the ``.grad`` it had; `clone` shares it. None means
        that rows of X are the gradients themselves: for linear probing these are the features.
    loss : {"cross_entropy", "squared_error"} or callable, default="cross_entropy"
        What is differentiated. A callable takes the output and the target of one sample, as torch
        tensors without batch dimension, and returns a scalar tensor. Of outputs for each token
        the mean over tokens is taken, without those that an ``attention_mask`` leaves out.
    target : str, default="auto"
        What the loss compares the output with, one of

        - ``"output"``: nothing, the output itself is differentiated, :math:`\nabla f` as in the
          paper's theory. Of K outputs per sample it is :math:`z^\top f / \sqrt{K}` with one z of
          random signs for all samples, whose inner products are in expectation those of the whole
          Jacobian, divided by K. Needs no labels.
        - ``"label"``: y, in `transform` too, or the labels that X brings.
        - ``"predicted"``: the most probable class. Needs no labels, but gradients of confident
          predictions are next to nothing, right or wrong, and methods that cover gradients then
          take few of these samples.
        - ``"sampled"``: a class drawn from the model's own probabilities, whose second moment is
          the Fisher information. Needs no labels.
        - ``"random"``: a class drawn uniformly, as an option of the published code. Needs no
          labels.

        ``"auto"`` is ``"output"``, but ``"label"`` for a callable loss.
    layers : None, str, int, or list of str and int
        Layers whose parameters are differentiated by: names of submodules, or positions among the
        modules that hold parameters, negative from the end. ``[-2, -1]`` is the last two layers;
        None is every parameter that requires a gradient (an adapter, say), or every one where none
        does.
    sketch : {"auto", "gaussian", "sparse_sign", "product"}, default="auto"
        The embedding.

        - ``"gaussian"``: independent entries N(0, 1/m), drawn in blocks. Gradients are formed.
        - ``"sparse_sign"``: eight entries :math:`\pm 1/\sqrt 8` in each row; costs 8 / m of the
          Gaussian's, and sparse X stays sparse.
        - ``"product"``: :math:`\pm 1` products of a side for the input and a side for the output
          of each layer. Gradients are never formed, which is hundreds of times faster for wide
          layers. Squared norms of gradients of rank one have up to twice the Gaussian's spread;
          up to four products are averaged, which brings it down to 1.3 times, while they cost
          less than the layer's own forward and backward. Needs a model.
        - ``"auto"``: Gaussian for each parameter with up to 4,096 entries, above that the product
          where the layer has one, else sparse signs. `sketch_plan_` says which.
    batch_size : int, default=64
        Samples differentiated together. A DataLoader keeps its own.
    device : str, torch.device or None, default=None
        Where to compute; None is where the model is, ``"auto"`` a GPU where there is one.
    dtype : {"float32", "float64"} or None, default=None
        Precision of the computation; None is the model's, or that of X with ``model=None``.
    cache_dir : str or path-like or None, default=None
        Directory for finished blocks of the sketch. A run that was killed and is started again
        takes them from there and gives the same bytes. A directory made with another model,
        other parameters or other data is refused. Needs a model and an integer `random_state`.
    random_state : int, RandomState instance or None, default=None
        Seeds :math:`\Gamma`, z and drawn classes.

    Attributes
    ----------
    projection_ : object
        The embedding; ``projection_.to_array()`` is :math:`\Gamma`, its rows in the order of the
        model's parameters.
    sketch_plan_ : SketchPlan
        A row for each layer: the number of gradient entries r, how the gradient is found (from
        hooks on the layer, by ``torch.func`` or a loop over samples where that fails), the
        embedding, and the multiply-adds it takes per sample. Prints as a table.
    n_parameters_ : int
        r, the number of entries of one gradient.
    n_features_in_ : int
        Number of features in `fit`, with ``model=None`` or two-dimensional X.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the features, where X has string column names.

    Raises
    ------
    ValueError
        If the output for one sample depends on the others in the batch; in `transform`, if y is
        needed and missing, gradients are not finite, or `cache_dir` belongs to something else.

    See Also
    --------
    SkMMSelector : Stage two, selection by moment matching.

    Notes
    -----
    X may be, with a model, an array, tensor or DataFrame, a dict of arrays for a model that takes
    keywords (token ids and an attention mask), a torch ``Dataset`` or ``DataLoader`` that does not
    shuffle, or a Hugging Face ``datasets.Dataset``. Of data sets that hold labels, these are used
    with ``target="label"`` where y is None.

    Of a Dask array `fit` reads the first chunk, and `transform` returns a Dask array that is
    computed when it is asked for, with the model as it is then.

    The embedding does not depend on the batch size, the order or the device.

    References
    ----------
    .. [1] Y. Dong, H. Phan, X. Pan, Q. Lei. "Sketchy Moment Matching: Toward Fast and Provable
       Data Selection for Finetuning". NeurIPS 2024. :arxiv:`2407.06120`

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_skmm import GradientSketcher
    >>> X = np.random.RandomState(0).normal(size=(10, 1000))
    >>> GradientSketcher(m=16, random_state=0).fit_transform(X).shape
    (10, 16)
    """

    _parameter_constraints: ClassVar[dict[str, list | str]] = {
        "m": [Interval(Integral, 1, None, closed="left")],
        "model": "no_validation",
        "loss": [StrOptions({"cross_entropy", "squared_error"}), callable],
        "target": [StrOptions({"auto", "label", "predicted", "sampled", "random", "output"})],
        "layers": [None, str, Integral, list, tuple],
        "sketch": [StrOptions({"auto", "gaussian", "sparse_sign", "product"})],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "device": "no_validation",
        "dtype": [StrOptions({"float32", "float64"}), None],
        "cache_dir": [None, str, PathLike],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        m=64,
        *,
        model=None,
        loss="cross_entropy",
        target="auto",
        layers=None,
        sketch="auto",
        batch_size=64,
        device=None,
        dtype=None,
        cache_dir=None,
        random_state=None,
    ):
        self.m = m
        self.model = model
        self.loss = loss
        self.target = target
        self.layers = layers
        self.sketch = sketch
        self.batch_size = batch_size
        self.device = device
        self.dtype = dtype
        self.cache_dir = cache_dir
        self.random_state = random_state

    def __sklearn_clone__(self):
        """Copy the parameters but share the model: it is large, and never changed."""
        params = {
            name: value if name in ("model", "loss", "device") else clone(value, safe=False)
            for name, value in self.get_params(deep=False).items()
        }
        copy = type(self)(**params)
        for name in ("_sklearn_output_config", "_skl_callbacks"):
            if hasattr(self, name):
                setattr(copy, name, getattr(self, name))
        return copy

    @with_callbacks
    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Draw the seed of the embedding, and plan how each layer is sketched.

        Parameters
        ----------
        X : array-like, sparse matrix, mapping, Dataset or DataLoader
            Inputs of the model, of which the first two are looked at, or gradients with
            ``model=None`` (dense or sparse, of shape (n_samples, n_features)).
        y : object, default=None
            Ignored.

        Returns
        -------
        self : object
            The fitted sketcher. A `fit` that fails leaves it as it was.
        """
        context = self._init_callback_context()
        context.call_on_fit_task_begin(estimator=self, X=X, y=y)
        self._fit(X)
        context.call_on_fit_task_end(estimator=self, X=X, y=y)
        return self

    def transform(self, X, y=None):
        """Return the sketched gradients of X.

        Parameters
        ----------
        X : array-like, sparse matrix, mapping, Dataset or DataLoader
            Inputs of the model, or gradients with ``model=None``.
        y : array-like of shape (n_samples, ...), default=None
            Labels, needed with ``target="label"`` only.

        Returns
        -------
        sketch : ndarray of shape (n_samples, m)
            Sketched gradients, float32 or float64 as the gradients are. A Dask array, of which
            nothing is computed yet, for a Dask array X.
        """
        check_is_fitted(self)
        return sketch_lazily(self, X, y) if is_dask(X) else self._sketch(X, y)

    @with_callbacks
    @_fit_context(prefer_skip_nested_validation=True)
    def fit_transform(self, X, y=None):
        """Fit, then return the sketched gradients of X.

        Parameters
        ----------
        X : array-like, sparse matrix, mapping, Dataset or DataLoader
            Inputs of the model, or gradients with ``model=None``.
        y : array-like of shape (n_samples, ...), default=None
            Labels, needed with ``target="label"`` only.

        Returns
        -------
        sketch : ndarray of shape (n_samples, m)
            Sketched gradients; a Dask array for a Dask array X.
        """
        context = self._init_callback_context(max_subtasks=None)
        context.call_on_fit_task_begin(estimator=self, X=X, y=y)
        with all_or_nothing(self):
            X_checked = self._fit(X)
            if is_dask(X):
                sketch = sketch_lazily(self, X, y)
            else:
                sketch = self._finite(list(_reported(self._sketched(X_checked, y), context, self)))
        context.call_on_fit_task_end(estimator=self, X=X, y=y)
        return sketch

    def _fit(self, X):
        if self.cache_dir is not None and (
            self.model is None or not isinstance(self.random_state, Integral)
        ):
            raise ValueError(
                "The 'cache_dir' parameter needs a model and an integer random_state, or the next "
                f"run would sketch otherwise. Got random_state={self.random_state!r} and "
                f"{'no ' if self.model is None else 'a '}model."
            )
        with all_or_nothing(self):
            X = self._validate(first_rows(X) if is_dask(X) else X, reset=True)
            seed = int(check_random_state(self.random_state).randint(MAX_SEED))
            if self.model is None:
                self._fit_rows(X, seed)
            else:
                torch_side = self._gradients()
                engine = self._engine(torch_side, seed)
                first = torch_side.open_batches(X, None, 2, engine.model.forward).first(2)
                self._planned = torch_side.plan_parameters(engine, first, self.sketch, self.m, seed)
                self.projection_ = BlockProjection([p.projection for p in self._planned])
                self.sketch_plan_ = SketchPlan.of(self._planned)
            self._seed = seed
            self.n_parameters_ = self.projection_.r
        return X

    def _fit_rows(self, X, seed):
        """Rows of X are the gradients."""
        r = X.shape[1]
        kind = self.sketch
        if kind == "product":
            raise ValueError(
                "The 'sketch' parameter can be 'product' with a model only, whose layers have an "
                "input and an output side, got model=None."
            )
        if kind == "auto":
            # By r alone, so that dense and sparse X have one sketch.
            kind = "gaussian" if r <= MAX_FORMED_ENTRIES else "sparse_sign"
        self.projection_ = projection_for(kind, r, self.m, seed)
        cost = r * self.projection_.per_row
        self.sketch_plan_ = SketchPlan([PlannedLayer("X", "rows", r, "X", kind, cost)])

    def _engine(self, torch_side, seed):
        model = torch_side.check_model(self.model)
        objective = torch_side.Objective(self.loss, self._resolve_target(), seed)
        return torch_side.Engine(
            model, self.layers, objective, device=self.device, dtype=self.dtype
        )

    @property
    def _n_features_out(self):
        return self.projection_.m

    @staticmethod
    def _gradients():
        # Late, so that `import sklearn_skmm` and sketching without a model need no torch.
        try:
            from sklearn_skmm.sketch import _torch
        except ModuleNotFoundError as error:
            if error.name != "torch":
                raise
            raise ImportError(
                "GradientSketcher with a model needs torch: pip install 'sklearn-skmm[torch]'."
            ) from error
        return _torch

    def _validate(self, X, *, reset):
        check_values(X, "X")
        if self.model is None:
            # scikit-learn looks for infinities after a cast, in a sum that may be inf - inf.
            with computing_in_numpy(), np.errstate(invalid="ignore", over="ignore"):
                return validate_data(
                    self,
                    X,
                    reset=reset,
                    accept_sparse="csr",
                    dtype=self.dtype or [np.float64, np.float32],
                )
        if not self._gradients().is_array(X):
            return X
        # Inputs may have any number of dimensions and be integers (tokens); frames are tables.
        tabular = getattr(X, "ndim", 2) <= 2
        if tabular:
            return validate_data(self, X, reset=reset, dtype="numeric")
        return check_array(X, allow_nd=True, dtype="numeric", input_name="X", estimator=self)

    def _resolve_target(self):
        if self.target == "auto":
            return "label" if callable(self.loss) else "output"
        by_class = self.target in ("predicted", "sampled", "random")
        if by_class and self.loss != "cross_entropy":
            raise ValueError(
                f"target={self.target!r} has meaning for loss='cross_entropy' only, whose targets "
                f"are classes. Got loss={self.loss!r}."
            )
        return self.target

    def _sketch(self, X, y, start=0):
        """Return GΓ of X, whose first sample is at this position in the whole."""
        X = self._validate(X, reset=False)
        return self._finite(list(self._sketched(X, y, start)), start)

    def _sketched(self, X, y, start=0):
        """Yield GΓ for consecutive batches of X."""
        if self.model is None:
            with np.errstate(over="ignore", invalid="ignore"):  # `_finite` says it better
                sketch = self.projection_.apply(X)
            yield sketch
            return
        torch_side = self._gradients()
        engine = self._engine(torch_side, self._seed)
        y = y if engine.objective.target == "label" else None
        batches = torch_side.open_batches(X, y, self.batch_size, engine.model.forward)
        if self.cache_dir is not None:
            yield from torch_side.sketch_with_cache(engine, batches, self._planned, self.cache_dir)
            return
        for batch in batches:
            yield engine.sketch(batch, start, self._planned)
            start += batch.size

    def _finite(self, parts, start=0):
        sketch = np.concatenate(parts)
        if not np.isfinite(sketch).all():
            bad = np.flatnonzero(~np.isfinite(sketch).all(axis=1))
            raise ValueError(
                f"The gradients of {bad.size} samples are not finite, the first at position "
                f"{start + bad[0]}."
            )
        return sketch

    def __sklearn_tags__(self):
        """Tell scikit-learn what this estimator takes and gives."""
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = self.model is None
        tags.input_tags.three_d_array = self.model is not None
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _reported(batches, context, estimator):
    """Yield the batches, each a task of the callbacks."""
    while True:
        task = context.subcontext(task_name="batch")
        task.call_on_fit_task_begin(estimator=estimator)
        part = next(batches, None)
        task.call_on_fit_task_end(estimator=estimator)
        if part is None:
            return
        yield part
