"""Bad input: a correct result, or an error of the usual type that leaves everything as it was.

Each entry of a catalogue is one case. `assert_rejected` looks at the type of the error and at what
it says, and at the state of the estimator, the model or the directory afterwards.
"""

import copy
import functools
import os
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, DataConversionWarning, NotFittedError
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline

import sklearn_skmm as skmm
from sklearn_skmm import diagnostics
from sklearn_skmm.cli._main import main
from sklearn_skmm.datasets import make_gmm_regression
from tests._selectors import make, selector_classes

N = 24
X = np.random.RandomState(0).normal(size=(N, 3))
Y = np.arange(N) % 2
SELECTORS = {cls.__name__: cls for cls in selector_classes()}


def everything(thing):
    """What a failure has to leave alone: of an estimator, a torch model or a directory."""
    if isinstance(thing, str | os.PathLike):
        paths = sorted(Path(thing).rglob("*"))
        return {str(path): path.read_bytes() if path.is_file() else None for path in paths}
    if not hasattr(thing, "named_modules"):
        state = dict(vars(thing))
        # The same objects with the same contents.
        return {name: (id(value), repr(value)) for name, value in state.items()}
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return {
        "values": {name: value.clone() for name, value in thing.state_dict().items()},
        "gradients": {name: p.grad for name, p in thing.named_parameters()},
        "requires_grad": {name: p.requires_grad for name, p in thing.named_parameters()},
        "devices": {name: p.device for name, p in thing.named_parameters()},
        "modes": {name: module.training for name, module in thing.named_modules()},
        "hooks": {name: [len(getattr(m, h)) for h in hooks] for name, m in thing.named_modules()},
    }


def assert_unchanged(before, after):
    if "values" not in before:
        assert after == before
        return
    values, same = before.pop("values"), after.pop("values")
    assert after == before
    assert values.keys() == same.keys()
    for name, value in values.items():
        # A model on the meta device has no values.
        assert value.is_meta or np.array_equal(value.numpy(), same[name].numpy(), equal_nan=True)


def assert_rejected(call, match, *watched, error=ValueError):
    """`call` raises this error, and every estimator, model or directory stays as it was."""
    before = [everything(thing) for thing in watched]
    with pytest.raises(error, match=match) as caught:
        call()
    assert type(caught.value).__module__.split(".")[0] in ("builtins", "sklearn")
    for thing, state in zip(watched, before, strict=True):
        assert_unchanged(state, everything(thing))


def quietly(function, *args):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return function(*args)


@functools.cache
def first_fit(cls, stratify):
    return quietly(make(SELECTORS[cls], 5, stratify=stratify).fit, X, Y)


def fitted(cls, stratify=False):
    return copy.deepcopy(first_fit(cls, stratify))


# What every selector is given as X

masked = np.ma.masked_array(X, mask=np.eye(N, 3) == 1)
# name: (X, error, message)
BAD_X = {
    "None": (None, ValueError, "Expected 2D array, got scalar"),
    "text": ("text", ValueError, "could not convert string to float: 'text'"),
    "scalar": (3.0, ValueError, "Expected 2D array, got scalar"),
    "1-d": (X[:, 0], ValueError, "Expected 2D array, got 1D"),
    "3-d": (X[None], ValueError, "dim 3"),
    "series": (pd.Series(X[:, 0]), ValueError, "Expected a 2-dimensional container"),
    "ragged": ([[1, 2], [3]] * (N // 2), ValueError, "inhomogeneous"),
    "no rows": (X[:0], ValueError, r"0 sample\(s\)"),
    "no columns": (X[:, :0], ValueError, r"0 feature\(s\)"),
    "NaN": (np.where(X > 1, np.nan, X), ValueError, "X contains NaN"),
    "infinity": (np.where(X > 1, np.inf, X), ValueError, "X contains infinity"),
    "minus infinity": (np.where(X > 1, -np.inf, X), ValueError, "X contains infinity"),
    "both infinities": (np.copysign(np.inf, X), ValueError, "X contains (infinity|NaN)"),
    "squares overflow": (X * 1e200, ValueError, r"largest entry of X is .*e\+200"),
    "squares underflow": (X * 1e-200, ValueError, r"largest entry of X is .*e-200"),
    "subnormals": (np.full((N, 3), 5e-324), ValueError, r"largest entry of X is .*e-324"),
    "text in columns": ([["a", "b", "c"]] * N, ValueError, "string to float: 'a'"),
    "objects": (np.array([["a", 1, 2]] * N, dtype=object), ValueError, "string to float: 'a'"),
    "None in objects": (np.array([[None, 1]] * N, dtype=object), ValueError, "X contains NaN"),
    "complex": (X + 1j, ValueError, "Complex data not supported"),
    "masked": (masked, ValueError, "masked array with 3 masked entries"),
    "dates": (np.zeros((N, 3), "M8[s]"), ValueError, r"numbers, got dtype datetime64\[s\]"),
    "durations": (np.zeros((N, 3), "m8[s]"), ValueError, r"numbers, got dtype timedelta64\[s\]"),
    "records": (np.zeros(N, dtype=[("a", float)]), ValueError, "Expected 2D array"),
    "long doubles": (X * np.longdouble("1e400"), ValueError, "X contains (infinity|NaN)|largest"),
    "set": ({1, 2}, TypeError, "'set'"),
    "dict": ({"a": [1]}, TypeError, "'dict'"),
    "generator": ((row for row in X), TypeError, "'generator'"),
    "text in a frame": (pd.DataFrame({"a": ["x"] * N}), ValueError, "string to float: 'x'"),
    "categories": (pd.DataFrame({"a": pd.Categorical(["x"] * N)}), ValueError, "float: 'x'"),
    "missing integers": (
        pd.DataFrame({"a": pd.array([1, None] * (N // 2), dtype="Int64")}),
        ValueError,
        "X contains NaN",
    ),
    "mixed column names": (pd.DataFrame(X, columns=["a", 1, "c"]), TypeError, "Feature names"),
    "sparse NaN": (sparse.coo_array(np.where(X > 1, np.nan, X)), ValueError, "X contains NaN"),
    "sparse infinity": (sparse.csr_array(np.where(X > 1, np.inf, X)), ValueError, "infinity"),
    "sparse complex": (sparse.csr_array(X + 1j), ValueError, "Complex data not supported"),
    "sparse 1-d": (
        sparse.coo_array(X[:, 0]),
        ValueError,
        "Expected 2D|1d sparse array",  # the second by SciPy before 1.15
    ),
}


@pytest.mark.parametrize("name", BAD_X)
@pytest.mark.parametrize("cls", SELECTORS)
def test_bad_X(cls, name):
    bad, error, match = BAD_X[name]
    selector = fitted(cls)
    for method in ("fit", "fit_transform", "fit_resample"):
        assert_rejected(lambda m=method: getattr(selector, m)(bad, Y), match, selector, error=error)
    unfitted = make(SELECTORS[cls], 5)
    assert_rejected(lambda: unfitted.fit(bad, Y), match, unfitted, error=error)
    if isinstance(bad, pd.DataFrame):
        return  # has other columns, too
    for method in ("transform", "score"):
        assert_rejected(lambda m=method: getattr(selector, m)(bad), match, selector, error=error)


# name: what has the values of X, to a rounding that decides nothing
GOOD_X = {
    "list": X.tolist(),
    "tuple of arrays": tuple(X),
    "objects": X.astype(object),
    "long doubles": X.astype(np.longdouble),
    "big-endian": X.astype(">f8"),
    "masked, but nothing": np.ma.masked_array(X, mask=False),
    "frame": pd.DataFrame(X, columns=list("abc")),
    "nullable frame": pd.DataFrame(X, columns=list("abc")).convert_dtypes(),
    "read-only": np.frombuffer(X.tobytes()).reshape(X.shape),
    "reversed twice": X[::-1][::-1],
    **{
        kind: getattr(sparse, f"{kind}_array")(X)
        for kind in ("coo", "csc", "lil", "dok", "bsr", "dia")
    },
}


@pytest.mark.parametrize("name", GOOD_X)
@pytest.mark.parametrize("cls", SELECTORS)
def test_what_holds_the_same_numbers_gives_the_same_picks(cls, name):
    expected = first_fit(cls, False).sample_indices_
    picks = quietly(make(SELECTORS[cls], 5).fit_transform, GOOD_X[name], Y)
    np.testing.assert_array_equal(picks, expected)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.float16])
@pytest.mark.parametrize("cls", SELECTORS)
def test_other_numbers_are_taken_as_floats(cls, dtype):
    rows = (np.abs(X) * 3).astype(dtype)
    expected = quietly(make(SELECTORS[cls], 5).fit_transform, rows.astype(float), Y)
    np.testing.assert_array_equal(quietly(make(SELECTORS[cls], 5).fit_transform, rows, Y), expected)


# Columns

FRAME = pd.DataFrame(X, columns=list("abc"))
# name: (frame, message)
BAD_COLUMNS = {
    "unseen": (FRAME.rename(columns={"c": "d"}), "feature names should match"),
    "another order": (FRAME[["b", "a", "c"]], "Feature names must be in the same order"),
    "missing": (FRAME[["a", "b"]], "feature names|features"),
    "more": (FRAME.assign(d=1.0), "feature names|features"),
}


@pytest.mark.parametrize("name", BAD_COLUMNS)
@pytest.mark.parametrize("cls", [*SELECTORS, "GradientSketcher"])
def test_other_columns(cls, name):
    if cls in SELECTORS:
        estimator = quietly(make(SELECTORS[cls], 5).fit, FRAME, Y)
    else:
        estimator = skmm.GradientSketcher(2, random_state=0).fit(FRAME)
    frame, match = BAD_COLUMNS[name]
    assert_rejected(lambda: estimator.transform(frame), match, estimator)


@pytest.mark.parametrize("cls", [*SELECTORS, "GradientSketcher"])
def test_unfitted(cls):
    estimator = make(SELECTORS[cls], 5) if cls in SELECTORS else skmm.GradientSketcher(2)
    for method in ("transform", "score", "get_support"):
        if hasattr(estimator, method):
            args = () if method == "get_support" else (X,)
            assert_rejected(
                lambda m=method, a=args: getattr(estimator, m)(*a),
                f"{cls} instance is not fitted yet",
                estimator,
                error=NotFittedError,
            )


# Labels, with strata

BAD_Y = {
    "None": (None, ValueError, "requires y"),
    "short": (Y[:-1], ValueError, r"inconsistent numbers of samples: \[24, 23\]"),
    "long": (np.append(Y, 0), ValueError, r"inconsistent numbers of samples: \[24, 25\]"),
    "NaN": (np.where(Y, np.nan, 0.0), ValueError, "contains NaN"),
    "infinity": (np.where(Y, np.inf, 0.0), ValueError, "contains infinity"),
    "scalar": (3, (ValueError, TypeError), "Singleton|scalar|0D|Expected|shape"),
    "two columns": (np.c_[Y, Y], ValueError, r"1d array, got an array of shape \(24, 2\)"),
    "3-d": (np.zeros((N, 1, 1)), ValueError, "dim 3"),
    "ragged": ([[0], [1, 2]] * (N // 2), ValueError, "inhomogeneous"),
    "complex": (Y + 1j, ValueError, "Complex data"),
    "sparse": (sparse.csr_array(Y[None]), TypeError, "[Ss]parse"),
}


@pytest.mark.parametrize("name", BAD_Y)
@pytest.mark.parametrize("cls", SELECTORS)
def test_bad_strata(cls, name):
    bad, error, match = BAD_Y[name]
    selector = fitted(cls, stratify=True)
    assert_rejected(lambda: selector.fit(X, bad), match, selector, error=error)
    assert_rejected(lambda: selector.transform(X, bad), match, selector, error=error)


@pytest.mark.parametrize("cls", SELECTORS)
def test_strata_of_another_pool(cls):
    selector = fitted(cls, stratify=True)
    assert_rejected(
        lambda: selector.transform(X, np.where(Y, 7, 0)), r"not seen in fit: \[7\]", selector
    )
    # An empty stratum is no error: its share goes to the others.
    picks = quietly(selector.transform, X, np.zeros(N, dtype=int))
    assert len(np.unique(picks)) == 5


@pytest.mark.parametrize("cls", SELECTORS)
def test_a_column_of_labels_is_taken_with_a_warning(cls):
    selector = make(SELECTORS[cls], 5, stratify=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        with pytest.warns(DataConversionWarning, match="column-vector"):
            picks = selector.fit_transform(X, Y[:, None])
        np.testing.assert_array_equal(picks, selector.fit_transform(X, Y))


# Parameters

BAD_EVERYWHERE = [
    *(("n_to_select", v) for v in (0, -1, 0.0, 1.5, 10.0, np.nan, np.inf, "10", None, [5], 5 + 0j)),
    *(("stratify", v) for v in ("yes", None, 2, [True])),
]
BAD_SEEDS = [("random_state", v) for v in ("seed", -1, 2**32, 1.5, [1])]
BAD_PARAMETERS = [
    *((name, *bad) for name in SELECTORS for bad in BAD_EVERYWHERE),
    *(
        (name, *bad)
        for name, cls in SELECTORS.items()
        for bad in BAD_SEEDS
        if "random_state" in make(cls).get_params()
    ),
    *(("SkMMSelector", "c_S", v) for v in (0, -1.0, np.nan, np.inf, "1", None)),
    *(("SkMMSelector", "init", v) for v in ("zero", None, 0, [0, 1])),
    *(("SkMMSelector", "rounding", v) for v in ("round", None, 0, ["cells"])),
    *(("SkMMSelector", "centrality", v) for v in (-0.1, np.nan, "0", None)),
    *(("SkMMSelector", "max_iter", v) for v in (0, -1, 1.5, np.inf, None)),
    *(("SkMMSelector", "tol", v) for v in (-1e-9, np.nan, np.inf, None)),
    *(("VOptimalSelector", "alpha", v) for v in (0, -1.0, np.nan, np.inf, "1")),
    *(("VOptimalSelector", "init", v) for v in ("random", None, 3)),
    *(("VOptimalSelector", "max_iter", v) for v in (-1, 0.5, None)),
    *(("VOptimalSelector", "tol", v) for v in (-1.0, np.nan, np.inf)),
    *(("FacilityLocationSelector", "metric", v) for v in ("cosine", None, 2)),
    *(("FacilityLocationSelector", "bandwidth", v) for v in (0, -1.0, np.nan, np.inf, "1")),
    *(("KMeansSelector", "n_init", v) for v in (0, 1.5, "auto", None)),
    *(("KMeansSelector", "max_iter", v) for v in (0, -1, 1.5)),
    *(("KCenterSelector", "init", v) for v in ("first", None, 0)),
    *(("AdaptiveSelector", "pivoting", v) for v in ("full", None)),
    *(("AdaptiveSelector", "block_size", v) for v in (0, 1.5, None)),
    *(("RidgeLeverageSelector", "alpha", v) for v in (-1.0, np.nan, np.inf, "1")),
    *(("TruncatedLeverageSelector", "n_components", v) for v in (0, -1, 1.5, "all")),
    *(("UncertaintySelector", "criterion", v) for v in ("variance", None)),
    *(("UncertaintySelector", "estimator", v) for v in (None, "logistic", Ridge())),
]


@pytest.mark.parametrize(("cls", "name", "value"), BAD_PARAMETERS)
def test_bad_parameters(cls, name, value):
    selector = fitted(cls)
    selector.set_params(**{name: value})
    match = rf"The '{name}' parameter of {cls} must be .* Got {value!r}"
    match = match.replace("(", r"\(").replace(")", r"\)").replace("[", r"\[").replace("]", r"\]")
    if name == "random_state" and value in (-1, 2**32):
        match = "random_state|Seed"
    assert_rejected(lambda: selector.fit(X, Y), match.replace("+", r"\+"), selector)
    unfitted = make(SELECTORS[cls], 5).set_params(**{name: value})
    assert_rejected(lambda: unfitted.fit(X, Y), match.replace("+", r"\+"), unfitted)


@pytest.mark.parametrize("cls", SELECTORS)
def test_more_picks_than_samples(cls):
    selector = fitted(cls)
    match = "n_to_select=25 must be at most .* n_samples=24"
    assert_rejected(lambda: selector.set_params(n_to_select=25).fit(X, Y), match, clone(selector))
    selector = fitted(cls)
    assert_rejected(lambda: selector.transform(X[:4]), "n_to_select=5 .* n_samples=4", selector)


@pytest.mark.parametrize("cls", SELECTORS)
def test_one_sample(cls):
    if cls == "UncertaintySelector":
        assert_rejected(lambda: make(SELECTORS[cls], 1).fit(X[:1], Y[:1]), "2 classes|class")
        return
    assert quietly(
        make(SELECTORS[cls], 1, **({"c_S": 2.0} if cls == "SkMMSelector" else {})).fit, X[:1], Y[:1]
    ).sample_indices_.tolist() == [0]


POSITIONS = {
    "repeated": ([0, 0], "distinct positions"),
    "empty": ([], r"0 sample\(s\)"),
    "2-d": ([[1]], r"1-d array of integer positions\. Got an array of shape \(1, 1\)"),
    "floats": ([0.5], r"integer positions\. Got .* dtype float64"),
    "too large": ([99], "positions from 0 to 23.* 99"),
    "negative": ([-1], "positions from 0 to 23.* -1"),
    "text": (["a"], "integer positions"),
    "too many": (list(range(6)), r"at most n=5 positions\. Got 6"),
    "NaN": ([np.nan], "NaN"),
}


@pytest.mark.parametrize("name", POSITIONS)
def test_bad_positions_to_start_from(name):
    value, match = POSITIONS[name]
    selector = skmm.VOptimalSelector(5).fit(X).set_params(init=value)
    assert_rejected(lambda: selector.fit(X), match, selector)


@pytest.mark.parametrize("c_S", [1e-320, 1e-3, 5 / 25])
def test_a_constant_that_no_coreset_reaches(c_S):
    selector = skmm.SkMMSelector(5, random_state=0).fit(X).set_params(c_S=c_S)
    assert_rejected(
        lambda: selector.fit(X),
        f"'c_S' parameter of SkMMSelector must be at least .*{c_S}",
        selector,
    )


@pytest.mark.parametrize("bandwidth", [1e-320, 1e-200, 1e-30, 1e30, 1e200, 1e308])
def test_extreme_bandwidths_only_lose_sight(bandwidth):
    selector = skmm.FacilityLocationSelector(5, bandwidth=bandwidth).fit(X)
    assert len(np.unique(selector.sample_indices_)) == 5
    assert selector.bandwidth_ == bandwidth


@pytest.mark.parametrize("alpha", [0, 1e-320, 1e308])
def test_extreme_ridges_are_ridges(alpha):
    selector = skmm.RidgeLeverageSelector(5, alpha=alpha, random_state=0).fit(X)
    assert selector.inclusion_probabilities_.sum() == pytest.approx(5)


class Wrong(LogisticRegression):
    """A classifier whose probabilities are not what they should be."""

    def __init__(self, kind=None):
        super().__init__()
        self.kind = kind

    def predict_proba(self, X):
        proba = super().predict_proba(X)
        return {
            "NaN": np.where(proba > 0.5, np.nan, proba),
            "short": proba[:-1],
            "1-d": proba[:, 0],
        }[self.kind]


@pytest.mark.parametrize("criterion", ["entropy", "margin", "least_confidence"])
@pytest.mark.parametrize("kind", ["NaN", "short", "1-d"])
def test_probabilities_that_are_none(kind, criterion):
    selector = skmm.UncertaintySelector(5, LogisticRegression(), criterion=criterion).fit(X, Y)
    selector.set_params(estimator=Wrong(kind))
    assert_rejected(lambda: selector.fit(X, Y), "predict_proba", selector)


# Models

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402


class Exhausted(torch.utils.data.IterableDataset):
    """Can be read once only."""

    def __init__(self):
        self.rows = iter(torch.from_numpy(X))

    def __iter__(self):
        return self.rows


def network(dtype=torch.float64, outputs=2):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Dropout(0.5), nn.Linear(4, outputs))
    model = model.to(dtype)
    model[2].eval()  # in another mode than the rest
    model[0].bias.requires_grad_(False)
    return model


def changed(name, value):
    model = network()
    with torch.no_grad():
        dict(model.named_parameters())[name].fill_(value)
    return model


class Mixing(nn.Module):
    """The output of a sample depends on the others in the batch."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2).double()

    def forward(self, x):
        return self.layer(x - x.mean(0))


class Returning(nn.Module):
    def __init__(self, what):
        super().__init__()
        self.layer = nn.Linear(3, 2).double()
        self.what = what

    def forward(self, x):
        return self.what(self.layer(x))


def shuffled():
    return torch.utils.data.DataLoader(torch.from_numpy(X), batch_size=4, shuffle=True)


def raises(output):
    raise RuntimeError("out of order")


# name: (parameters, X, y, error, message)
BAD_MODELS = {
    "a string": ({"model": "resnet"}, X, None, TypeError, "'model' parameter must be .*'resnet'"),
    "a class": ({"model": nn.Linear}, X, None, TypeError, "'model' parameter must be"),
    "an estimator": ({"model": Ridge()}, X, None, TypeError, "'model' parameter must be"),
    "no parameters": ({"model": nn.ReLU()}, X, None, ValueError, "has no parameters"),
    "integers": (
        {"model": nn.Sequential(nn.Flatten(), network()), "layers": ["head"]},
        X,
        None,
        ValueError,
        "'layers' parameter names 'head'",
    ),
    "mixes samples": ({"model": Mixing()}, X, None, ValueError, "treat each sample independently"),
    "returns None": ({"model": Returning(lambda f: None)}, X, None, TypeError, "return a tensor"),
    "returns text": ({"model": Returning(lambda f: "a")}, X, None, TypeError, "return a tensor"),
    "returns NaN": ({"model": changed("3.weight", np.nan)}, X, None, ValueError, "not finite"),
    "returns infinity": ({"model": changed("0.weight", 1e308)}, X * 1e3, None, ValueError, "finit"),
    "fails": ({"model": Returning(raises)}, X, None, RuntimeError, "out of order"),
    "layer position": ({"layers": [9]}, X, None, ValueError, "position 9"),
    "layer negative": ({"layers": -9}, X, None, ValueError, "position -9"),
    "layer empty": ({"layers": []}, X, None, ValueError, r"selects no parameters.* Got \[\]"),
    "layer float": ({"layers": 1.5}, X, None, ValueError, "'layers' parameter .* Got 1.5"),
    "layer without parameters": ({"layers": "1"}, X, None, ValueError, "selects no .* Got '1'"),
    "m zero": ({"m": 0}, X, None, ValueError, "'m' parameter .* Got 0"),
    "m float": ({"m": 1.5}, X, None, ValueError, "'m' parameter .* Got 1.5"),
    "m None": ({"m": None}, X, None, ValueError, "'m' parameter .* Got None"),
    "loss unknown": ({"loss": "hinge"}, X, None, ValueError, "'loss' parameter .* Got 'hinge'"),
    "loss None": ({"loss": None}, X, None, ValueError, "'loss' parameter .* Got None"),
    "loss a vector": ({"loss": lambda f, t: f}, X, Y, ValueError, "one value per sample"),
    "loss a float": ({"loss": lambda f, t: 1.0}, X, Y, ValueError, "one value per sample"),
    "loss None of it": ({"loss": lambda f, t: None}, X, Y, ValueError, "one value per sample"),
    "loss NaN": ({"loss": lambda f, t: f.sum() * np.nan}, X, Y, ValueError, "not finite"),
    "loss fails": ({"loss": lambda f, t: raises(f)}, X, Y, RuntimeError, "out of order"),
    "loss without y": ({"loss": lambda f, t: f.sum()}, X, None, ValueError, "requires y"),
    "target unknown": ({"target": "true"}, X, None, ValueError, "'target' parameter .* 'true'"),
    "target label, no y": ({"target": "label"}, X, None, ValueError, "requires y"),
    "target and loss": (
        {"target": "sampled", "loss": "squared_error"},
        X,
        None,
        ValueError,
        "'target' parameter can be 'sampled' only with .*Got loss='squared_error'",
    ),
    "one class": (
        {"target": "predicted", "model": network(outputs=1)},
        X,
        None,
        ValueError,
        "needs a model with an output for each class",
    ),
    "y float": ({"target": "label"}, X, Y + 0.5, ValueError, "integer class positions"),
    "y too large": ({"target": "label"}, X, Y + 1, ValueError, "from 0 to 1, .* from 1 to 2"),
    "y negative": ({"target": "label"}, X, Y - 1, ValueError, "from 0 to 1, .* from -1 to 0"),
    "y short": ({"target": "label"}, X, Y[:-1], ValueError, "inconsistent numbers of samples"),
    "y text": ({"target": "label"}, X, ["a"] * N, TypeError, "y must contain numbers"),
    "y ragged": ({"target": "label"}, X, [[0], [1, 2]] * (N // 2), ValueError, "unequal length"),
    "y of another shape": (
        {"target": "label", "loss": "squared_error"},
        X,
        np.zeros((N, 3)),
        ValueError,
        "y has targets of shape",
    ),
    "y NaN": (
        {"target": "label", "loss": "squared_error"},
        X,
        np.full((N, 2), np.nan),
        ValueError,
        "not finite",
    ),
    "sketch unknown": ({"sketch": "fft"}, X, None, ValueError, "'sketch' parameter .* 'fft'"),
    "batch_size zero": ({"batch_size": 0}, X, None, ValueError, "'batch_size' parameter .* Got 0"),
    "batch_size float": ({"batch_size": 2.5}, X, None, ValueError, "'batch_size' .* Got 2.5"),
    "dtype": ({"dtype": "float16"}, X, None, ValueError, "'dtype' parameter .* 'float16'"),
    "device unknown": ({"device": "abacus"}, X, None, RuntimeError, "abacus"),
    "device meta": ({"device": "meta"}, X, None, (ValueError, RuntimeError), "meta"),
    "random_state": ({"random_state": "x"}, X, None, ValueError, "'random_state' .* Got 'x'"),
    "cache_dir number": ({"cache_dir": 3}, X, None, ValueError, "'cache_dir' parameter .* Got 3"),
    "cache_dir unseeded": (
        {"cache_dir": "cache", "random_state": None},
        X,
        None,
        ValueError,
        "'cache_dir' parameter needs .* random_state=None",
    ),
    "X None": ({}, None, None, TypeError, "NoneType"),
    "X NaN": ({}, np.full((N, 3), np.nan), None, ValueError, "X contains NaN"),
    "X infinity": ({}, np.full((N, 3), np.inf), None, ValueError, "X contains infinity"),
    "X a tensor of NaN": ({}, torch.full((N, 3), torch.nan), None, ValueError, "not finite"),
    "X empty": ({}, X[:0], None, ValueError, r"0 sample\(s\)"),
    "X text": ({}, [["a"] * 3] * N, None, ValueError, "string"),
    "X complex": ({}, X + 1j, None, ValueError, "Complex data"),
    "X sparse": ({}, sparse.csr_array(X), None, TypeError, "csr_array"),
    "X masked": ({}, masked, None, ValueError, "masked"),
    "X of other columns": ({}, X[:, :2], None, RuntimeError, "shapes cannot be multiplied"),
    "X ragged": ({}, [[1.0], [1.0, 2.0]], None, ValueError, "inhomogeneous|unequal"),
    "X a generator": ({}, (row for row in X), None, TypeError, "generator"),
    "X a number": ({}, 3, None, TypeError, "int"),
    "X an empty dict": ({}, {}, None, ValueError, "None of the keys"),
    "X shuffled": ({}, shuffled(), None, ValueError, "order.*RandomSampler"),
    "X exhausted": (
        {},
        torch.utils.data.DataLoader(Exhausted(), 4),
        None,
        ValueError,
        "every time",
    ),
}


@pytest.mark.parametrize("name", BAD_MODELS)
def test_bad_models(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    params, rows, y, error, match = BAD_MODELS[name]
    model = params.get("model", network())
    params = {"m": 4, "model": model, "random_state": 0, "batch_size": 5, **params}
    sketcher = skmm.GradientSketcher(**params)
    watched = [sketcher, *([model] if isinstance(model, nn.Module) else []), tmp_path]
    assert_rejected(lambda: sketcher.fit_transform(rows, y), match, *watched, error=error)
    assert not [attribute for attribute in vars(sketcher) if attribute.endswith("_")]


@pytest.mark.parametrize("name", ["returns NaN", "loss a vector", "y short", "y too large"])
def test_a_failure_leaves_no_cache_that_misleads(name, tmp_path):
    params, rows, y, error, match = BAD_MODELS[name]
    model = params.get("model", network())
    params = {"m": 4, "model": model, "random_state": 0, "batch_size": 5, **params}
    sketcher = skmm.GradientSketcher(**params, cache_dir=tmp_path / "cache")
    assert_rejected(lambda: sketcher.fit_transform(rows, y), match, sketcher, model, error=error)
    # No block, and nothing under a temporary name.
    assert {path.name for path in (tmp_path / "cache").glob("*")} <= {"manifest.json"}


@pytest.mark.parametrize("name", BAD_MODELS)
def test_a_fitted_sketcher_stays_fitted(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    params, rows, y, error, match = BAD_MODELS[name]
    if name in ("X a generator", "X exhausted"):
        pytest.skip("used up by the other test")
    model = network()
    sketcher = skmm.GradientSketcher(4, model=model, random_state=0, batch_size=5).fit(X)
    expected = sketcher.transform(X)
    kept = sketcher.get_params(deep=False)
    sketcher.set_params(**params)
    assert_rejected(lambda: sketcher.fit_transform(rows, y), match, sketcher, model, error=error)
    sketcher.set_params(**kept)
    np.testing.assert_array_equal(sketcher.transform(X), expected)


def test_a_model_on_the_meta_device():
    model = network().to("meta")
    sketcher = skmm.GradientSketcher(4, model=model, random_state=0)
    assert_rejected(
        lambda: sketcher.fit_transform(X),
        "meta",
        sketcher,
        model,
        error=(ValueError, RuntimeError, NotImplementedError),
    )


@pytest.mark.parametrize(
    "name",
    [
        n
        for n in BAD_X
        if n not in ("squares overflow", "squares underflow", "subnormals", "generator")
    ],
)
def test_bad_gradients(name):
    bad, error, match = BAD_X[name]
    sketcher = skmm.GradientSketcher(2, random_state=0).fit(X)
    assert_rejected(lambda: sketcher.fit_transform(bad), match, sketcher, error=error)
    if not isinstance(bad, pd.DataFrame):
        assert_rejected(lambda: sketcher.transform(bad), match, sketcher, error=error)


def test_products_need_a_model():
    sketcher = skmm.GradientSketcher(2, random_state=0).fit(X).set_params(sketch="product")
    assert_rejected(lambda: sketcher.fit(X), "'sketch' parameter .* model=None", sketcher)


# Meta-estimator, comparison, active learning, data, diagnostics

COMPARISON = {
    "two of a name": (
        lambda: skmm.compare_selectors([skmm.UniformSelector(1)] * 2, Ridge(), X, Y, n_to_select=5),
        ValueError,
        r"more than one \['UniformSelector'\]",
    ),
    "y short": (
        lambda: skmm.compare_selectors(
            [skmm.UniformSelector(1)], Ridge(), X, Y[:-1], n_to_select=5
        ),
        ValueError,
        "inconsistent numbers of samples",
    ),
    "too many": (
        lambda: skmm.compare_selectors([skmm.UniformSelector(1)], Ridge(), X, Y, n_to_select=99),
        ValueError,
        "n_to_select=99",
    ),
    "zero": (
        lambda: skmm.compare_selectors([skmm.UniformSelector(1)], Ridge(), X, Y, n_to_select=0),
        ValueError,
        "'n_to_select' parameter",
    ),
    "NaN": (
        lambda: skmm.compare_selectors(
            [skmm.UniformSelector(1)], Ridge(), X * np.nan, Y, n_to_select=5
        ),
        ValueError,
        "X contains NaN",
    ),
    "score": (
        lambda: skmm.compare_selectors(
            [skmm.UniformSelector(1)], Ridge(), X, Y, n_to_select=5, scoring="best"
        ),
        ValueError,
        "'scoring' parameter",
    ),
    "cv": (
        lambda: skmm.compare_selectors(
            [skmm.UniformSelector(1)], Ridge(), X, Y, n_to_select=5, cv=99
        ),
        ValueError,
        "n_splits=99",
    ),
}


@pytest.mark.parametrize("name", COMPARISON)
def test_bad_comparisons(name):
    call, error, match = COMPARISON[name]
    assert_rejected(call, match, error=error)


def coreset(selector=None, estimator=None, **params):
    selector = skmm.UniformSelector(8, random_state=0) if selector is None else selector
    return skmm.CoresetEstimator(Ridge() if estimator is None else estimator, selector, **params)


CORESETS = {
    "selector None": ({"selector": None}, X, Y, ValueError, "'selector' parameter"),
    "selector a scaler": (
        {"selector": make_pipeline(skmm.GradientSketcher(2))},
        X,
        Y,
        TypeError,
        "'selector' parameter of CoresetEstimator must be",
    ),
    "estimator text": ({"estimator": "ridge"}, X, Y, ValueError, "'estimator' parameter"),
    "weights of none": (
        {
            "estimator": __import__("sklearn.neighbors").neighbors.KNeighborsClassifier(),
            "use_sample_weight": True,
        },
        X,
        Y,
        TypeError,
        "use_sample_weight=True .* KNeighborsClassifier",
    ),
    "weights": ({"use_sample_weight": "yes"}, X, Y, ValueError, "'use_sample_weight' parameter"),
    "y short": ({}, X, Y[:-1], ValueError, "inconsistent"),
    "y NaN": ({}, X, np.full(N, np.nan), ValueError, "y contains NaN"),
    "X NaN": ({}, X * np.nan, Y, ValueError, "X contains NaN"),
    "too many": ({"selector": skmm.UniformSelector(99)}, X, Y, ValueError, "n_to_select=99"),
}


@pytest.mark.parametrize("name", CORESETS)
def test_bad_coreset_estimators(name):
    params, rows, y, error, match = CORESETS[name]
    meta = coreset().fit(X, Y).set_params(**params)
    assert_rejected(lambda: meta.fit(rows, y), match, meta, error=error)


def test_an_unfitted_coreset_estimator():
    meta = coreset()
    assert_rejected(lambda: meta.predict(X), "not fitted yet", meta, error=NotFittedError)


OPEN = np.where(Y, np.nan, 0.0)
QUERIES = {
    "nothing to query": (lambda s: s.query(X, np.zeros(N)), ValueError, "no candidate"),
    "labelled": (lambda s: s.query(X, OPEN, candidates=[0]), ValueError, r"labelled \[0\] instead"),
    "floats": (lambda s: s.query(X, OPEN, candidates=[0.5]), TypeError, "integer positions"),
    "outside": (lambda s: s.query(X, OPEN, candidates=[99]), ValueError, "between 0 and 23"),
    "batch zero": (lambda s: s.query(X, OPEN, batch_size=0), ValueError, "batch_size == 0"),
    "batch text": (lambda s: s.query(X, OPEN, batch_size="1"), TypeError, "batch_size"),
    "y short": (lambda s: s.query(X, OPEN[:-1]), ValueError, "inconsistent"),
    "X NaN": (lambda s: s.query(X * np.nan, OPEN), ValueError, "X contains NaN"),
}


@pytest.mark.parametrize("name", QUERIES)
def test_bad_queries(name):
    call, error, match = QUERIES[name]
    strategy = skmm.SelectorQuery(skmm.UniformSelector(1, random_state=0))
    assert_rejected(lambda: call(strategy), match, strategy, error=error)


DATA = [
    *(("n_samples", v) for v in (0, -1, 1.5, "9", None)),
    *(("n_features", v) for v in (0, 1.5, None)),
    *(("n_clusters", v) for v in (0, 1.5, None)),
    *(("scale", v) for v in (-1.0, np.nan, np.inf, "1")),
    *(("noise", v) for v in (-1.0, np.nan, np.inf, "1")),
    ("random_state", "x"),
]


@pytest.mark.parametrize(("name", "value"), DATA)
def test_bad_data_parameters(name, value):
    assert_rejected(
        lambda: make_gmm_regression(**{"n_samples": 50, "n_features": 9, name: value}),
        f"'{name}' parameter of make_gmm_regression must be .* Got {value!r}",
    )


@pytest.mark.parametrize("sizes", [{"n_clusters": 10}, {"n_samples": 8}])
def test_more_clusters_than_there_is_room_for(sizes):
    assert_rejected(
        lambda: make_gmm_regression(**{"n_samples": 50, "n_features": 9, **sizes}), "n_clusters="
    )


INDEXED = {
    "effective_c_S": diagnostics.effective_c_S,
    "variance_term": diagnostics.variance_term,
    "bias_term": diagnostics.bias_term,
    "v_optimality": lambda G, indices: diagnostics.v_optimality(G, indices, alpha=1.0),
    "excess_risk_bound": diagnostics.excess_risk_bound,
}
BAD_INDICES = {
    "floats": ([0.5], "indices must be .* dtype float64"),
    "None": (None, "indices must be"),
    "empty": ([], "non-empty"),
    "2-d": ([[0, 1]], r"shape \(1, 2\)"),
    "a short mask": (np.ones(5, dtype=bool), "mask of 24 entries"),
    "an empty mask": (np.zeros(N, dtype=bool), "non-empty"),
    "too large": ([24], "positions among the 24 rows"),
    "too negative": ([-25], "positions among the 24 rows"),
    "text": (["a"], "indices must be"),
    "scalar": (3, r"shape \(\)"),
}


@pytest.mark.parametrize("name", BAD_INDICES)
@pytest.mark.parametrize("function", INDEXED)
def test_diagnostics_of_bad_indices(function, name):
    value, match = BAD_INDICES[name]
    assert_rejected(lambda: INDEXED[function](X, value), match)


@pytest.mark.parametrize(
    "name",
    [
        "None",
        "1-d",
        "3-d",
        "NaN",
        "infinity",
        "squares overflow",
        "subnormals",
        "complex",
        "masked",
        "no rows",
        "text",
        "dates",
    ],
)
@pytest.mark.parametrize("function", [*INDEXED, "intrinsic_dimension"])
def test_diagnostics_of_bad_gradients(function, name):
    bad, error, match = BAD_X[name]
    match = match.replace("X", "G")
    if function == "intrinsic_dimension":
        assert_rejected(lambda: diagnostics.intrinsic_dimension(bad), match, error=error)
    else:
        assert_rejected(lambda: INDEXED[function](bad, [0]), match, error=error)


NUMBERS = [
    (diagnostics.variance_term, "sigma"),
    (diagnostics.excess_risk_bound, "sigma"),
    (diagnostics.bias_term, "theta_norm"),
    (diagnostics.excess_risk_bound, "theta_norm"),
    (diagnostics.v_optimality, "alpha"),
]


@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf, "1", None, 1j])
@pytest.mark.parametrize(("function", "name"), NUMBERS)
def test_diagnostics_of_bad_numbers(function, name, value):
    error = ValueError if isinstance(value, float) else TypeError
    assert_rejected(
        lambda: function(X, [0, 1], **{name: value}), f"{name} must be .*, got ", error=error
    )


@pytest.mark.parametrize(
    ("basis", "match"),
    [
        (np.ones((1, 2)), "3 columns, as G has, got 2"),
        (np.ones(3), "2D array"),
        (np.full((1, 3), np.nan), "basis contains NaN"),
        ("all", "string"),
    ],
)
@pytest.mark.parametrize("function", [diagnostics.variance_term, diagnostics.bias_term])
def test_diagnostics_of_a_bad_basis(function, basis, match):
    assert_rejected(lambda: function(X, [0, 1], basis=basis), match)


def test_a_basis_of_zeros_spans_nothing():
    assert diagnostics.variance_term(X, [0, 1], basis=np.zeros((1, 3))) == 0.0
    everything_outside = 2.0 * np.square(X).sum() / N
    outside = diagnostics.bias_term(X, [0, 1], basis=np.zeros((1, 3)))
    assert outside == pytest.approx(everything_outside)


# Plots

pyplot = pytest.importorskip("matplotlib.pyplot")
RESULTS = pd.DataFrame({"selector": ["a", "a"], "n": [1, 2], "score": [0.1, 0.2]})
DISPLAYS = {
    "points": (lambda: skmm.CoresetDisplay(X, [0]), ValueError, "two columns"),
    "positions": (lambda: skmm.CoresetDisplay(X[:, :2], [99]), ValueError, "0 to 23"),
    "weights": (
        lambda: skmm.CoresetDisplay(X[:, :2], [0], weights=[-1.0]),
        ValueError,
        "weights=",
    ),
    "unfitted": (
        lambda: skmm.CoresetDisplay.from_selector(skmm.UniformSelector(5), X),
        NotFittedError,
        "not fitted",
    ),
    "another pool": (
        lambda: skmm.CoresetDisplay.from_selector(
            skmm.UniformSelector(5, random_state=0).fit(X), X[:9]
        ),
        ValueError,
        "X has 9 samples",
    ),
    "no frame": (lambda: skmm.SelectionCurveDisplay([1]), ValueError, "DataFrame"),
    "no columns": (
        lambda: skmm.SelectionCurveDisplay(RESULTS[["n"]]),
        ValueError,
        "columns selector",
    ),
    "no rows": (lambda: skmm.SelectionCurveDisplay(RESULTS[:0]), ValueError, "must have rows"),
    "no style": (
        lambda: skmm.SelectionCurveDisplay(RESULTS).plot(std_display_style="bars"),
        ValueError,
        "std_display_style='bars'",
    ),
    "no scale": (
        lambda: skmm.SelectionCurveDisplay(RESULTS).plot(log_scale="x"),
        ValueError,
        "log_scale='x'",
    ),
    "no eigenvalues": (
        lambda: skmm.SpectrumDisplay([np.nan], n_samples=3),
        ValueError,
        "eigenvalues",
    ),
    "no losses": (lambda: skmm.PerformanceProfileDisplay([1.0]), ValueError, "DataFrame"),
    "no constant": (
        lambda: skmm.MomentMatchDisplay([1.0], [1.0], c_S=-1.0),
        ValueError,
        "c_S=-1.0",
    ),
}


@pytest.mark.parametrize("name", DISPLAYS)
def test_bad_displays(name):
    call, error, match = DISPLAYS[name]
    assert_rejected(call, match, error=error)
    assert not pyplot.get_fignums()


# The command line

COMMANDS = {
    # name: (what the file holds, further arguments, exit status, word of the message)
    "more than samples": (X, ["--n", "25"], 1, "n_to_select=25"),
    "no constant": (X, ["--n", "5", "--c-S", "0.01"], 1, "c_S"),
    "constant infinite": (X, ["--n", "5", "--c-S", "inf"], 2, "'inf'"),
    "constant NaN": (X, ["--n", "5", "--c-S", "nan"], 2, "'nan'"),
    "seed too large": (X, ["--n", "5", "--seed", str(2**32)], 2, str(2**32)),
    "n in words": (X, ["--n", "five"], 2, "'five'"),
    "n infinite": (X, ["--n", "inf"], 2, "'inf'"),
    "m in words": (X, ["--n", "5", "--m", "all"], 2, "'all'"),
    "m negative": (X, ["--n", "5", "--m", "-3"], 2, "--m"),
    "selector": (X, ["--n", "5", "--selector", "uncertainty"], 2, "uncertainty"),
    "infinity": (X * np.inf, ["--n", "5"], 1, "X contains"),
    "squares overflow": (X * 1e300, ["--n", "5", "--m", "none"], 1, "largest entry of X"),
    "subnormals": (X * 1e-310, ["--n", "5", "--m", "none"], 1, "largest entry of X"),
    "no rows": (X[:0], ["--n", "5"], 1, "0 sample(s)"),
    "no columns": (X[:, :0], ["--n", "5"], 1, "0 feature(s)"),
    "3-d": (X[None], ["--n", "5"], 1, "2-d"),
    "scalar": (np.float64(3), ["--n", "5"], 1, "2-d"),
    "dates": (np.zeros((N, 2), "M8[s]"), ["--n", "5"], 1, "datetime64"),
    "records": (np.zeros(N, dtype=[("a", float)]), ["--n", "5"], 1, "2-d"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_bad_commands(name, tmp_path, monkeypatch, capsys):
    pool, options, status, word = COMMANDS[name]
    monkeypatch.chdir(tmp_path)
    np.save("pool.npy", pool)
    before = everything(tmp_path)
    argv = ["select", "pool.npy", *options, "--out", "picks.csv", "--summary", "summary.json"]
    assert main(argv) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert word in err
    assert "Traceback" not in err
    assert everything(tmp_path) == before
