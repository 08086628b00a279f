"""Stage one: sketched per-sample gradients."""

from numbers import Integral
from os import PathLike
from typing import ClassVar

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin, clone
from sklearn.callback import CallbackSupportMixin, with_callbacks
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from sklearn_skmm.data import Samples
from sklearn_skmm.sketch._lazy import sketch_lazily
from sklearn_skmm.sketch._row_gradients import RowGradients
from sklearn_skmm.utils._sklearn import Interval, StrOptions, _fit_context
from sklearn_skmm.utils._validation import MAX_SEED, all_or_nothing


class GradientSketcher(
    ClassNamePrefixFeaturesOutMixin, TransformerMixin, CallbackSupportMixin, BaseEstimator
):
    r"""Sketch per-sample gradients of a pretrained model into m dimensions.

    Stage one of Sketchy Moment Matching [1]_. Let :math:`G \in R^{N \times r}` hold the gradients
    of the model at N samples, one per row, and let :math:`\Gamma \in R^{r \times m}` be a random
    projection (Johnson–Lindenstrauss) with :math:`E[\Gamma\Gamma^T] = I`. `transform` returns
    :math:`G\Gamma`, which keeps squared norms and inner products in expectation. A fitted sketcher
    has one :math:`\Gamma`, which does not depend on the batch size, the order of the samples or
    the device.

    Parameters
    ----------
    m : int, default=64
        Dimension of the sketch. The theory asks for 11 times the intrinsic dimension of the
        gradients, see `diagnostics.intrinsic_dimension`.
    model : torch.nn.Module or None, default=None
        The pretrained model, or a fitted skorch net. It is evaluated in evaluation mode and left
        in the mode, on the device and with the ``.grad`` it had. `clone` does not copy it. None
        means that the rows of X are the gradients. For linear probing these are the features.
    loss : {"cross_entropy", "squared_error"} or callable, default="cross_entropy"
        The loss to differentiate. A callable takes the output and the target of one sample, as
        torch tensors without batch dimension, and returns a scalar tensor. If the model has an
        output for each token, the mean over the tokens is differentiated. Tokens that an
        ``attention_mask`` excludes do not count, except where the own loss of a causal language
        model counts them (see `target`), nor do those whose label is −100.
    target : str, default="auto"
        What the loss compares the output with:

        - ``"output"``: nothing. The output f itself is differentiated, as in the paper's theory.
          For K outputs per sample it is :math:`z^\top f / \sqrt{K}`, where z has random signs that
          are the same for all samples. The inner products of these gradients are in expectation
          those of the whole Jacobian, divided by K. Needs no labels.
        - ``"label"``: y, which `transform` needs too, or the labels in X. Labels of tokens mean
          what the model's own argument ``labels`` means: a causal language model takes its input
          tokens as labels and shifts them itself, and so is it done here. A model without a loss
          of its own is compared with the label at the same position.
        - ``"predicted"``: the most probable class. Needs no labels. The gradient almost vanishes
          wherever the model is confident, right or wrong, so methods that cover gradients select
          few of these samples.
        - ``"sampled"``: a class sampled from the predicted probabilities. The second moment of
          these gradients estimates the Fisher information. Needs no labels.
        - ``"random"``: a class sampled uniformly, an option of the published code. Needs no labels.

        ``"auto"`` is ``"label"`` for a callable loss, and otherwise ``"output"``.
    layers : None, str, int, or list of str and int
        Layers by whose parameters the loss is differentiated: names of submodules, or positions
        among the modules that have parameters, where negative positions count from the end.
        ``[-2, -1]`` means the last two layers. None means every parameter that requires a gradient
        (an adapter, for example), or every parameter if none does.
    sketch : {"auto", "gaussian", "sparse_sign", "product"}, default="auto"
        The kind of random projection.

        - ``"gaussian"``: independent entries N(0, 1/m). The gradients are formed explicitly.
        - ``"sparse_sign"``: eight entries :math:`\pm 1/\sqrt 8` in each row. Costs 8 / m of the
          Gaussian projection, and keeps sparse X sparse.
        - ``"product"``: products of a ±1 projection of each layer's input and one of its output
          gradient. Never forms the gradients, which is hundreds of times faster for wide layers.
          For gradients of rank one, the squared norms have up to twice the Gaussian's spread. Up
          to four products are averaged where that costs less than the layer's own forward and
          backward pass, which reduces the spread to 1.3 times the Gaussian's. Needs a model.
        - ``"auto"``: Gaussian for each parameter with up to 4,096 entries. For larger ones product
          where the layer has one, and sparse signs elsewhere. `sketch_plan_` shows the choice.
    batch_size : int, default=64
        Number of samples that are differentiated together. A DataLoader keeps its own.
    device : str, torch.device or None, default=None
        Where to compute. None means where the model is, and ``"auto"`` a GPU if there is one.
    dtype : {"float32", "float64"} or None, default=None
        Precision of the computation. None means that of the model, or of X with ``model=None``.
    cache_dir : str or path-like or None, default=None
        Directory for finished blocks of the sketch. A run that was killed and is started again
        reads them from there and returns the same bytes. A directory that was made with another
        model, other parameters or other data is refused. Needs a model and an integer
        `random_state`.
    random_state : int, RandomState instance or None, default=None
        Controls :math:`\Gamma`, z and sampled classes. Pass an int for the same sketch in every
        call.

    Attributes
    ----------
    projection_ : object
        The random projection. ``projection_.to_array()`` returns :math:`\Gamma`, with rows in the
        order of the model's parameters.
    sketch_plan_ : SketchPlan
        A table with a row for each layer: the number of gradient entries r, how the gradient is
        found (from hooks on the layer, by ``torch.func``, or by a loop over the samples), the kind
        of projection, and the multiply-adds per sample.
    n_parameters_ : int
        r, the number of entries of one gradient.
    n_features_in_ : int
        Number of features seen in `fit`. Only with ``model=None`` or two-dimensional X.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the features, if X has column names that are all strings.

    Raises
    ------
    ValueError
        If the output for one sample depends on the others in the batch. In `transform`, if y is
        needed and missing, if gradients are not finite, or if `cache_dir` belongs to another run.

    See Also
    --------
    SkMMSelector : Stage two, selection by moment matching.

    Notes
    -----
    With a model, X may be an array, a tensor, a DataFrame, a dict of arrays for a model that takes
    keyword arguments (token ids and an attention mask, for example), a torch ``Dataset``, a
    ``DataLoader`` that does not shuffle, or a Hugging Face ``datasets.Dataset``. With
    ``target="label"`` and without y, the labels in the data set are used.

    With ``loss="cross_entropy"`` and a label for each token, the model is called once with labels.
    Its own loss has to be the cross entropy with the labels at the same or at the next positions.
    Otherwise `transform` raises an error.

    A sequence-to-sequence model of transformers needs decoder inputs. Without a column
    ``decoder_input_ids`` they are made from the labels, whatever the target, as the model itself
    makes them. Positions whose label is −100 do not count.

    Integer and Boolean inputs, such as images of dtype uint8, are cast to the precision of the
    model where it fails otherwise. Tokens and masks stay as they are.

    For a Dask array, `fit` reads the first two rows. `transform` is lazy and uses the model's
    weights at compute time.

    Sketchers in several threads may share a model. They take turns with it, one batch at a time.

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
        """Copy the parameters but share the model, which is large and never changed."""
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
        """Draw the seed of the random projection, and plan how each layer is sketched.

        Parameters
        ----------
        X : array-like, sparse matrix, mapping, Dataset or DataLoader
            Inputs of the model, of which the first two are used, or gradients with ``model=None``
            (dense or sparse, of shape (n_samples, n_features)).
        y : object, default=None
            Labels, of which a sequence-to-sequence model with ``target="label"`` makes its decoder
            inputs. Otherwise ignored.

        Returns
        -------
        self : object
            The fitted sketcher. If `fit` raises, the sketcher is left as it was.
        """
        context = self._init_callback_context()
        context.call_on_fit_task_begin(estimator=self, X=X, y=y)
        self._fit(X, y)
        context.call_on_fit_task_end(estimator=self, X=X, y=y)
        return self

    def transform(self, X, y=None):
        """Return the sketched gradients of X.

        Parameters
        ----------
        X : array-like, sparse matrix, mapping, Dataset or DataLoader
            Inputs of the model, or gradients with ``model=None``.
        y : array-like of shape (n_samples, ...), default=None
            Labels. Needed with ``target="label"`` only.

        Returns
        -------
        sketch : ndarray of shape (n_samples, m)
            Sketched gradients, in the precision of the gradients. For a Dask array X, a lazy Dask
            array.
        """
        check_is_fitted(self)
        samples = self._gradients().open(X, self, reset=False)
        return sketch_lazily(self, samples.X, y) if samples.lazy else self._sketch(samples, y)

    @with_callbacks
    @_fit_context(prefer_skip_nested_validation=True)
    def fit_transform(self, X, y=None):
        """Fit, then return the sketched gradients of X.

        Parameters
        ----------
        X : array-like, sparse matrix, mapping, Dataset or DataLoader
            Inputs of the model, or gradients with ``model=None``.
        y : array-like of shape (n_samples, ...), default=None
            Labels. Needed with ``target="label"`` only.

        Returns
        -------
        sketch : ndarray of shape (n_samples, m)
            Sketched gradients; a Dask array for a Dask array X.
        """
        context = self._init_callback_context(max_subtasks=None)
        context.call_on_fit_task_begin(estimator=self, X=X, y=y)
        with all_or_nothing(self):
            samples = self._fit(X, y)
            if samples.lazy:
                sketch = sketch_lazily(self, samples.X, y)
            else:
                sketch = self._finite(_reported(self._sketched(samples, y), context, self))
        context.call_on_fit_task_end(estimator=self, X=X, y=y)
        return sketch

    def _fit(self, X, y) -> Samples:
        """Open X, draw the seed and plan the sketch."""
        if self.cache_dir is not None and (
            self.model is None or not isinstance(self.random_state, Integral)
        ):
            raise ValueError(
                "The 'cache_dir' parameter needs a model and an integer random_state, so that the "
                f"next run computes the same sketch. Got random_state={self.random_state!r} and "
                f"{'no ' if self.model is None else 'a '}model."
            )
        with all_or_nothing(self):
            gradients = self._gradients()
            samples = gradients.open(X, self, reset=True)
            seed = int(check_random_state(self.random_state).randint(MAX_SEED))
            self._plan = gradients.plan(
                samples.first, None if samples.lazy else y, self.sketch, self.m, seed
            )
            self.projection_, self.sketch_plan_ = self._plan.projection, self._plan.table
            self.n_parameters_ = self.projection_.r
        return samples

    @property
    def _n_features_out(self):
        return self.projection_.m

    def _gradients(self):
        """Return what is sketched: the rows of X, or the gradients of the model."""
        if self.model is None:
            return RowGradients(self.dtype)
        # Imported here so that `import sklearn_skmm` and sketching without a model need no torch.
        try:
            from sklearn_skmm.sketch import _torch
        except ModuleNotFoundError as error:
            if error.name != "torch":
                raise
            raise ImportError(
                "GradientSketcher with a model needs torch: pip install 'sklearn-skmm[torch]'."
            ) from error
        return _torch.ModelGradients(
            self.model,
            layers=self.layers,
            loss=self.loss,
            target=self._resolve_target(),
            batch_size=self.batch_size,
            device=self.device,
            dtype=self.dtype,
            cache_dir=self.cache_dir,
        )

    def _resolve_target(self):
        if self.target == "auto":
            return "label" if callable(self.loss) else "output"
        by_class = self.target in ("predicted", "sampled", "random")
        if by_class and self.loss != "cross_entropy":
            raise ValueError(
                f"The 'target' parameter can be {self.target!r} only with loss='cross_entropy', "
                f"whose targets are classes. Got loss={self.loss!r}."
            )
        return self.target

    def _sketch(self, samples, y, start=0):
        """Return GΓ of samples, the first of which is at position `start` of the whole."""
        return self._finite(self._sketched(samples, y, start), start)

    def _sketched(self, samples, y, start=0):
        """Yield GΓ for consecutive batches of samples."""
        yield from self._gradients().sketches(samples, y, start, self._plan)

    @staticmethod
    def _finite(parts, start=0):
        """Concatenate the parts of a sketch, or raise if some sample has no finite gradient."""
        sketch = np.concatenate(list(parts))
        if not np.isfinite(sketch).all():
            bad = np.flatnonzero(~np.isfinite(sketch).all(axis=1))
            raise ValueError(
                f"The gradients of {bad.size} samples are not finite, the first at position "
                f"{start + bad[0]}."
            )
        return sketch

    def __sklearn_tags__(self):
        """Return the tags by which scikit-learn knows what this estimator accepts and returns."""
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = self.model is None
        tags.input_tags.three_d_array = self.model is not None
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _reported(batches, context, estimator):
    """Yield the batches, each as one task of the callbacks."""
    while True:
        task = context.subcontext(task_name="batch")
        task.call_on_fit_task_begin(estimator=estimator)
        part = next(batches, None)
        task.call_on_fit_task_end(estimator=estimator)
        if part is None:
            return
        yield part
