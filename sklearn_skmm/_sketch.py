"""Stage one: sketched per-sample gradients."""

from numbers import Integral
from typing import ClassVar

import numpy as np
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    _fit_context,
    clone,
)
from sklearn.callback import CallbackSupportMixin, with_callbacks
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_consistent_length, check_is_fitted, validate_data

from sklearn_skmm._base import MAX_SEED, Interval, StrOptions, all_or_nothing
from sklearn_skmm._projection import GaussianProjection


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
        The pretrained model. It is used in evaluation mode and comes back in the mode, on the
        device and with the ``.grad`` it had; `clone` shares it. None means that rows of X are the
        gradients themselves: for linear probing with squared error these are the features.
    loss : {"cross_entropy", "squared_error"} or callable, default="cross_entropy"
        What is differentiated. A callable takes the output and the target of one sample, as torch
        tensors without batch dimension, and returns a scalar tensor.
    target : {"auto", "label", "predicted", "output"}, default="auto"
        What the loss compares the output with. ``"label"`` takes y, in `transform` too.
        ``"predicted"`` takes the most probable class and needs no labels. ``"output"``
        differentiates the output of a model with one output per sample, :math:`\nabla f` as in
        the paper's theory, and needs no labels. ``"auto"`` is label-free where that has meaning:
        ``"predicted"`` for cross entropy, ``"output"`` for squared error, ``"label"`` for a
        callable.
    layers : None, str, int, or list of str and int, default=None
        Layers whose parameters are differentiated by: names of submodules, or positions among the
        modules that hold parameters, negative from the end. ``[-2, -1]`` is the last two layers;
        None is all.
    sketch : {"gaussian"}, default="gaussian"
        The embedding.
    batch_size : int, default=64
        Samples differentiated together; memory is O(batch_size · r).
    device : str, torch.device or None, default=None
        Where to compute; None is where the model is.
    dtype : {"float32", "float64"} or None, default=None
        Precision of the computation; None is the model's, or that of X with ``model=None``.
    random_state : int, RandomState instance or None, default=None
        Seeds :math:`\Gamma`.

    Attributes
    ----------
    projection_ : GaussianProjection
        The embedding; ``projection_.to_array()`` is :math:`\Gamma`.
    n_parameters_ : int
        r, the number of entries of one gradient.
    n_features_in_ : int
        Number of features in `fit`, with ``model=None`` or two-dimensional X.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the features, where X has string column names.

    Raises
    ------
    ValueError
        In `transform`, if y is needed and missing, or gradients are not finite.

    See Also
    --------
    SkMMSelector : Stage two, selection by moment matching.

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
        "target": [StrOptions({"auto", "label", "predicted", "output"})],
        "layers": [None, str, Integral, list, tuple],
        "sketch": [StrOptions({"gaussian"})],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "device": "no_validation",
        "dtype": [StrOptions({"float32", "float64"}), None],
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
        sketch="gaussian",
        batch_size=64,
        device=None,
        dtype=None,
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
        """Find r and draw the seed of the embedding; no gradient is computed.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features) or (n_samples, ...)
            Inputs of the model, or gradients with ``model=None`` (dense or sparse).
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
        X : {array-like, sparse matrix} of shape (n_samples, n_features) or (n_samples, ...)
            Inputs of the model, or gradients with ``model=None``.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            Labels, needed with ``target="label"`` only.

        Returns
        -------
        sketch : ndarray of shape (n_samples, m)
            Sketched gradients, float32 or float64 as the gradients are.
        """
        check_is_fitted(self)
        X = self._validate(X, reset=False)
        return self._finite(np.concatenate(list(self._sketched_batches(X, y))))

    @with_callbacks
    @_fit_context(prefer_skip_nested_validation=True)
    def fit_transform(self, X, y=None):
        """Fit, then return the sketched gradients of X.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features) or (n_samples, ...)
            Inputs of the model, or gradients with ``model=None``.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            Labels, needed with ``target="label"`` only.

        Returns
        -------
        sketch : ndarray of shape (n_samples, m)
            Sketched gradients.
        """
        context = self._init_callback_context(max_subtasks=None)
        context.call_on_fit_task_begin(estimator=self, X=X, y=y)
        with all_or_nothing(self):
            X_checked = self._fit(X)
            parts = []
            batches = self._sketched_batches(X_checked, y)
            while True:
                task = context.subcontext(task_name="batch")
                task.call_on_fit_task_begin(estimator=self)
                part = next(batches, None)
                task.call_on_fit_task_end(estimator=self)
                if part is None:
                    break
                parts.append(part)
            sketch = self._finite(np.concatenate(parts))
        context.call_on_fit_task_end(estimator=self, X=X, y=y)
        return sketch

    def _fit(self, X):
        with all_or_nothing(self):
            if self.model is not None:
                self._gradients().check_model(self.model)
            X = self._validate(X, reset=True)
            if self.model is None:
                r = X.shape[1]
            else:
                gradients = self._gradients()
                r = gradients.n_entries(gradients.select_parameters(self.model, self.layers))
            seed = int(check_random_state(self.random_state).randint(MAX_SEED))
            self.projection_ = GaussianProjection(r, self.m, seed)
            self.n_parameters_ = r
        return X

    @property
    def _n_features_out(self):
        return self.projection_.m

    @staticmethod
    def _gradients():
        # Late, so that `import sklearn_skmm` and sketching without a model need no torch.
        try:
            from sklearn_skmm import _gradients
        except ImportError as error:
            raise ImportError(
                "GradientSketcher with a model needs torch: pip install 'sklearn-skmm[torch]'."
            ) from error
        return _gradients

    def _validate(self, X, *, reset):
        if self.model is None:
            return validate_data(
                self,
                X,
                reset=reset,
                accept_sparse="csr",
                dtype=self.dtype or [np.float64, np.float32],
            )
        # Inputs may have any number of dimensions and be integers (tokens); frames are tables.
        tabular = getattr(X, "ndim", 2) <= 2
        if tabular:
            return validate_data(self, X, reset=reset, dtype="numeric")
        return check_array(X, allow_nd=True, dtype="numeric", input_name="X", estimator=self)

    def _resolve_target(self):
        if self.target == "auto":
            auto = {"cross_entropy": "predicted", "squared_error": "output"}
            return auto.get(self.loss, "label") if isinstance(self.loss, str) else "label"
        if self.target == "predicted" and self.loss != "cross_entropy":
            raise ValueError(
                "target='predicted' has meaning for loss='cross_entropy' only: for other losses "
                "the gradient at the prediction is zero or undefined. "
                f"Got loss={self.loss!r}."
            )
        return self.target

    def _sketched_batches(self, X, y):
        """Yield GΓ for consecutive batches of X."""
        if self.model is None:
            yield self.projection_.apply(X)
            return
        target = self._resolve_target()
        if target == "label":
            if y is None:
                raise ValueError(
                    "GradientSketcher with target='label' requires y to be passed, but the target "
                    "y is None. target='predicted' or 'output' needs no labels."
                )
            y = np.asarray(y)
            check_consistent_length(X, y)
            if self.loss == "cross_entropy" and not np.issubdtype(y.dtype, np.integer):
                raise ValueError(
                    "y must hold integer class positions for loss='cross_entropy', "
                    f"got dtype {y.dtype}."
                )
        gradients = self._gradients()
        for batch in gradients.batches_of_gradients(
            self.model,
            X,
            y,
            parameters=gradients.select_parameters(self.model, self.layers),
            loss=self.loss,
            target=target,
            batch_size=self.batch_size,
            device=self.device,
            dtype=self.dtype,
        ):
            yield self.projection_.apply(batch)

    def _finite(self, sketch):
        if not np.isfinite(sketch).all():
            bad = np.flatnonzero(~np.isfinite(sketch).all(axis=1))
            raise ValueError(
                f"The gradients of {bad.size} samples are not finite, the first at position "
                f"{bad[0]}."
            )
        return sketch

    def __sklearn_tags__(self):
        """Tell scikit-learn what this estimator takes and gives."""
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = self.model is None
        tags.input_tags.three_d_array = self.model is not None
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
