"""CoresetEstimator knows all classes of y, also those without a sample in the coreset."""

import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, clone
from sklearn.datasets import load_digits
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from sklearn_skmm import CoresetEstimator, UniformSelector, compare_selectors

X, CODES = load_digits(n_class=6, return_X_y=True)
X, CODES = X[:200] / 16, CODES[:200]
# Labels of every kind, in the order of the codes.
LABELS = {
    "integers": np.arange(6),
    "negative": np.arange(6) - 3,
    "gaps": np.array([1, 3, 10, 11, 50, 99]),
    "floats": np.arange(6) / 1.0,
    "strings": np.array(["a", "bb", "c", "d", "e", "f"]),
    "objects": np.array(["a", "bb", "c", "d", "e", "f"], dtype=object),
}
METHODS = {"predict_proba": 0.0, "predict_log_proba": -np.inf, "decision_function": None}
CLASSIFIERS = [
    LogisticRegression(),
    make_pipeline(StandardScaler(), LogisticRegression()),
    GridSearchCV(LogisticRegression(), {"C": [1.0]}, cv=2),
    KNeighborsClassifier(1),
    DecisionTreeClassifier(random_state=0),
    GaussianNB(),
    LinearDiscriminantAnalysis(),
    SVC(),
]


class Given(BaseEstimator):
    """Selects positions that it is told."""

    def __init__(self, positions):
        self.positions = positions

    def fit_transform(self, X, y=None):
        return np.asarray(self.positions)


def positions_of(codes):
    return np.flatnonzero(np.isin(CODES, codes))[:60].tolist()


def lowest(values):
    return np.finfo(values.dtype).min


@pytest.mark.parametrize(
    ("estimator", "kind"),
    # With labels of every kind for one, as the columns do not depend on the classifier.
    [(CLASSIFIERS[0], kind) for kind in LABELS] + [(e, "strings") for e in CLASSIFIERS[1:]],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
@pytest.mark.parametrize("codes", [[0, 2, 5], [1, 4], [0, 1, 2, 3, 4, 5]], ids=str)
def test_columns_of_all_classes(estimator, codes, kind):
    y, rows = LABELS[kind][CODES], positions_of(codes)
    plain = clone(estimator).fit(X[rows], y[rows])
    model = CoresetEstimator(estimator, Given(rows)).fit(X, y)
    np.testing.assert_array_equal(model.classes_, LABELS[kind])
    np.testing.assert_array_equal(model.predict(X), plain.predict(X))
    for method, fill in METHODS.items():
        if not hasattr(plain, method):
            assert not hasattr(model, method)
            continue
        with np.errstate(divide="ignore"):
            values, inner = getattr(model, method)(X), getattr(plain, method)(X)
        assert values.shape == (200, 6)
        assert values.dtype == inner.dtype
        if inner.ndim == 1:
            inner = np.c_[-inner, inner]
        np.testing.assert_array_equal(values[:, codes], inner)
        missing = np.setdiff1d(np.arange(6), codes)
        expected = lowest(values) if fill is None else fill
        np.testing.assert_array_equal(values[:, missing], np.full((200, len(missing)), expected))
        np.testing.assert_array_equal(model.classes_[values.argmax(axis=1)], model.predict(X))
    if hasattr(model, "predict_proba"):
        np.testing.assert_allclose(model.predict_proba(X).sum(axis=1), 1.0)
    assert model.score(X, y) == plain.score(X, y)
    own = CoresetEstimator(estimator, Given(rows), all_classes=False).fit(X, y)
    np.testing.assert_array_equal(own.classes_, LABELS[kind][codes])


@pytest.mark.parametrize("container", [list, pd.Series, pd.Categorical])
def test_containers_of_labels(container):
    y = container(LABELS["strings"][CODES])
    model = CoresetEstimator(KNeighborsClassifier(1), Given(positions_of([1, 2, 4])))
    if container is pd.Categorical:
        y = pd.Series(y)
    assert model.fit(X, y).classes_.tolist() == LABELS["strings"].tolist()
    assert model.predict_proba(X).shape == (200, 6)


@pytest.mark.parametrize("only", [0, 1])
def test_one_of_two_classes(only):
    y = CODES % 2
    rows = np.flatnonzero(y == only)[:20]
    for estimator in (KNeighborsClassifier(1), DecisionTreeClassifier(), GaussianNB()):
        model = CoresetEstimator(estimator, Given(rows)).fit(X, y)
        proba = model.predict_proba(X)
        np.testing.assert_array_equal(proba, np.tile(np.eye(2)[only], (200, 1)))
        assert np.all(model.predict(X) == only)
    with pytest.raises(ValueError, match="class"):
        CoresetEstimator(LogisticRegression(), Given(rows)).fit(X, y)

    class Constant(KNeighborsClassifier):
        def decision_function(self, X):
            return np.zeros(len(X))

    model = CoresetEstimator(Constant(1), Given(rows)).fit(X, y)
    decision = model.decision_function(X)
    assert decision.shape == (200,)
    np.testing.assert_array_equal(model.classes_[(decision > 0).astype(int)], model.predict(X))


def test_several_outputs():
    Y = np.c_[CODES, CODES % 3, np.zeros(200, dtype=int)]
    rows = positions_of([1, 4])
    for estimator in (
        KNeighborsClassifier(1),
        RandomForestClassifier(3, random_state=0),
        MultiOutputClassifier(KNeighborsClassifier(1)),
    ):
        plain = clone(estimator).fit(X[rows], Y[rows])
        model = CoresetEstimator(estimator, Given(rows)).fit(X, Y)
        assert [len(classes) for classes in model.classes_] == [6, 3, 1]
        proba, inner = model.predict_proba(X), plain.predict_proba(X)
        assert [part.shape[1] for part in proba] == [6, 3, 1]
        np.testing.assert_array_equal(proba[0][:, [1, 4]], inner[0])
        np.testing.assert_array_equal(proba[1][:, [1]], inner[1])
        np.testing.assert_array_equal(model.predict(X), plain.predict(X))


def test_labels_that_are_not_exclusive_keep_their_columns():
    Y = np.c_[CODES % 2, CODES % 3 == 0].astype(int)
    for estimator in (
        MLPClassifier(max_iter=1000, random_state=0, tol=1e-2),
        ClassifierChain(DecisionTreeClassifier(random_state=0)),
    ):
        model = CoresetEstimator(estimator, UniformSelector(60, random_state=0)).fit(X, Y)
        assert model.predict_proba(X).shape == (200, 2)


def test_labels_that_are_missing_are_no_class():
    rows = positions_of([0, 1])
    for kind, missing in (("floats", np.nan), ("objects", None), ("objects", np.nan)):
        y = LABELS[kind][CODES]
        y[CODES > 2] = missing
        model = CoresetEstimator(LogisticRegression(), Given(rows)).fit(X, y)
        assert model.classes_.tolist() == LABELS[kind][:3].tolist()


def test_columns_of_pairs_of_classes_are_refused():
    for estimator in (
        SVC(decision_function_shape="ovo"),
        make_pipeline(StandardScaler(), SVC(decision_function_shape="ovo")),
    ):
        for codes in ([0, 2, 4], [0, 1, 2, 3]):  # as many pairs as classes, and as all classes
            model = CoresetEstimator(estimator, Given(positions_of(codes))).fit(X, CODES)
            with pytest.raises(ValueError, match=r"decision_function returned .*all_classes=False"):
                model.decision_function(X)
            model.set_params(all_classes=False).fit(X, CODES)
            assert model.decision_function(X).shape == (200, len(codes) * (len(codes) - 1) // 2)
        model = CoresetEstimator(estimator, Given(positions_of([1, 3]))).fit(X, CODES)
        assert model.classes_[model.decision_function(X).argmax(axis=1)].tolist() == list(
            model.predict(X)
        )


def test_a_network_that_has_all_columns_is_left_alone():
    class Network(GaussianNB):
        def predict_proba(self, X):
            out = np.zeros((len(X), 6), dtype=np.float32)
            out[:, self.classes_] = super().predict_proba(X)
            return out

    rows = positions_of([1, 2, 5])
    model = CoresetEstimator(Network(), Given(rows)).fit(X, CODES)
    proba = model.predict_proba(X)
    assert proba.dtype == np.float32
    np.testing.assert_array_equal(proba.argmax(axis=1), model.predict(X))


@pytest.mark.parametrize("scoring", ["neg_log_loss", "roc_auc_ovr", "roc_auc_ovo", "accuracy"])
@pytest.mark.parametrize("stratify", [False, True])
def test_scores_are_numbers(scoring, stratify):
    model = CoresetEstimator(
        LogisticRegression(), UniformSelector(6, stratify=stratify, random_state=0)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = cross_val_score(model, X, CODES, cv=3, scoring=scoring)
        assert np.isfinite(scores).all()
        proba = cross_val_predict(model, X, CODES, cv=3, method="predict_proba")
    assert proba.shape == (200, 6)
    results = compare_selectors(
        [UniformSelector(1, stratify=stratify)], LogisticRegression(), X, CODES,
        n_to_select=[6], cv=3, scoring=scoring, random_state=0, error_score="raise",
    )  # fmt: skip
    assert np.isfinite(results["score"]).all()


def test_regression_has_no_classes():
    model = CoresetEstimator(Ridge(), UniformSelector(20)).fit(X, CODES)
    assert not hasattr(model, "classes_")
    with pytest.raises(ValueError, match="'all_classes' parameter of CoresetEstimator must be"):
        model.set_params(all_classes="yes").fit(X, CODES)
