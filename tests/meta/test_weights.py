"""Weights of a coreset reach the estimator inside, however deep it is."""

from typing import ClassVar

import numpy as np
import pytest
import sklearn
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import VotingClassifier
from sklearn.feature_selection import RFE
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_skmm import CoresetEstimator, KMeansSelector, UniformSelector

X = np.random.RandomState(0).normal(size=(60, 5))
Y = (X[:, 0] > 0).astype(int)
GIVEN = np.random.RandomState(1).uniform(0.5, 2, size=60)
SELECTOR = KMeansSelector(20, random_state=0).fit(X)
ROWS, WEIGHT = SELECTOR.sample_indices_, SELECTOR.sample_weight_


class Witness(ClassifierMixin, BaseEstimator):
    """Keeps the weights it gets."""

    seen: ClassVar[list] = []

    def __init__(self, C=1.0):
        self.C = C

    def fit(self, X, y, sample_weight=None):
        Witness.seen.append(sample_weight)
        self.classes_ = np.unique(y)
        return self

    def predict(self, X):
        return np.full(len(X), self.classes_[0])


def without_weights(selector):
    """Request no weights: those given to `fit` are for the estimator."""
    if sklearn.get_config()["enable_metadata_routing"]:
        selector.set_fit_request(sample_weight=False)
    return selector


def scaler():
    return StandardScaler()


def search(estimator, name="C"):
    return GridSearchCV(estimator, {name: [1.0]}, cv=2)


# name: (estimator, the parameter of its fit without routing)
NESTED = {
    "plain": (lambda e: e, "sample_weight"),
    "pipeline": (lambda e: make_pipeline(scaler(), e), "witness__sample_weight"),
    "two pipelines": (
        lambda e: make_pipeline(scaler(), make_pipeline(scaler(), e)),
        "pipeline__witness__sample_weight",
    ),
    "search": (lambda e: search(e), "sample_weight"),
    "search in a pipeline": (
        lambda e: make_pipeline(scaler(), search(e)),
        "gridsearchcv__sample_weight",
    ),
    "pipeline in a search": (
        lambda e: search(make_pipeline(scaler(), e), "witness__C"),
        "witness__sample_weight",
    ),
    "pipeline in a search in a pipeline": (
        lambda e: make_pipeline(scaler(), search(make_pipeline(scaler(), e), "witness__C")),
        "gridsearchcv__witness__sample_weight",
    ),
    "voting": (lambda e: VotingClassifier([("a", e)]), "sample_weight"),
    "voting in a pipeline": (
        lambda e: make_pipeline(scaler(), VotingClassifier([("a", e)])),
        "votingclassifier__sample_weight",
    ),
    "coreset": (
        lambda e: CoresetEstimator(e, without_weights(UniformSelector(1.0, random_state=0))),
        "sample_weight",
    ),
    "pipeline in a coreset": (
        lambda e: CoresetEstimator(
            make_pipeline(scaler(), e), without_weights(UniformSelector(1.0, random_state=0))
        ),
        "witness__sample_weight",
    ),
}


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("name", NESTED)
def test_without_routing_weights_reach_the_last_step(name, given):
    nest, parameter = NESTED[name]
    model = CoresetEstimator(
        nest(Witness()), KMeansSelector(20, random_state=0), use_sample_weight=True
    )
    Witness.seen.clear()
    model.fit(X, Y, **({parameter: GIVEN} if given else {}))
    np.testing.assert_array_equal(model.sample_indices_, ROWS)
    expected = WEIGHT * GIVEN[ROWS] if given else WEIGHT
    np.testing.assert_allclose(np.sort(Witness.seen[-1]), np.sort(expected))
    assert all(weight is not None for weight in Witness.seen)
    # As scikit-learn itself passes them on.
    Witness.seen.clear()
    nest(Witness()).fit(X[ROWS], Y[ROWS], **{parameter: expected})
    np.testing.assert_allclose(np.sort(Witness.seen[-1]), np.sort(expected))


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("name", [*NESTED, "one against the rest"])
def test_with_routing_weights_reach_who_asks(name, given):
    nest = {**NESTED, "one against the rest": (OneVsRestClassifier, "")}[name][0]
    with sklearn.config_context(enable_metadata_routing=True):
        witness = Witness().set_fit_request(sample_weight=True)
        if hasattr(witness, "set_score_request"):
            witness.set_score_request(sample_weight=True)
        estimator = nest(witness)
        for value in [*estimator.get_params().values()]:
            if isinstance(value, StandardScaler):
                value.set_fit_request(sample_weight=False)
        selector = without_weights(KMeansSelector(20, random_state=0))
        model = CoresetEstimator(estimator, selector, use_sample_weight=True)
        Witness.seen.clear()
        model.fit(X, Y, **({"sample_weight": GIVEN} if given else {}))
        expected = WEIGHT * GIVEN[ROWS] if given else WEIGHT
        np.testing.assert_allclose(np.sort(Witness.seen[-1]), np.sort(expected))


def test_with_routing_several_steps_get_them():
    with sklearn.config_context(enable_metadata_routing=True):
        both = make_pipeline(
            StandardScaler().set_fit_request(sample_weight=True),
            LogisticRegression().set_fit_request(sample_weight=True),
        )
        model = CoresetEstimator(
            both, KMeansSelector(20, random_state=0), use_sample_weight=True
        ).fit(X, Y)
        expected = both.fit(X[ROWS], Y[ROWS], sample_weight=WEIGHT)
    np.testing.assert_array_equal(model.estimator_[-1].coef_, expected[-1].coef_)
    np.testing.assert_array_equal(model.estimator_[0].mean_, expected[0].mean_)
    assert not np.allclose(expected[0].mean_, StandardScaler().fit(X[ROWS]).mean_)


def test_a_search_over_a_coreset_of_a_pipeline():
    pipe = make_pipeline(StandardScaler(), LogisticRegression())
    model = CoresetEstimator(pipe, KMeansSelector(20, random_state=0), use_sample_weight=True)
    found = GridSearchCV(model, {"selector__n_to_select": [10, 20]}, cv=2).fit(X, Y)
    assert np.isfinite(found.cv_results_["mean_test_score"]).all()


@pytest.mark.parametrize(
    "estimator",
    [
        TransformedTargetRegressor(Ridge(alpha=2.0)),
        RFE(LogisticRegression(), n_features_to_select=3),
        make_pipeline(StandardScaler(), RFE(LogisticRegression(), n_features_to_select=3)),
    ],
)
def test_other_estimators_that_pass_weights_on(estimator):
    selector = KMeansSelector(20, random_state=0)
    weighted = CoresetEstimator(estimator, selector, use_sample_weight=True).fit(X, Y)
    plain = CoresetEstimator(estimator, selector).fit(X, Y)
    inner = [weighted.estimator_, plain.estimator_]
    for k, one in enumerate(inner):
        one = one[-1] if hasattr(one, "steps") else one
        inner[k] = getattr(one, "regressor_", getattr(one, "estimator_", None)).coef_
    assert not np.allclose(*inner)


@pytest.mark.parametrize("routing", [False, True])
@pytest.mark.parametrize(
    "estimator",
    [
        KNeighborsClassifier(),
        make_pipeline(StandardScaler(), KNeighborsClassifier()),
        make_pipeline(StandardScaler(), make_pipeline(StandardScaler(), KNeighborsClassifier())),
        search(KNeighborsClassifier(), "n_neighbors"),
        make_pipeline(LogisticRegression(), "passthrough"),
    ],
    ids=range(5),
)
def test_where_nothing_takes_weights_it_is_refused(estimator, routing):
    model = CoresetEstimator(estimator, UniformSelector(20), use_sample_weight=True)
    with (
        sklearn.config_context(enable_metadata_routing=routing),
        pytest.raises(TypeError, match="use_sample_weight=True needs an estimator whose fit acce"),
    ):
        model.fit(X, Y)
    assert not hasattr(model, "estimator_")


def test_with_routing_a_request_is_needed():
    pipe = make_pipeline(StandardScaler(), LogisticRegression())
    model = CoresetEstimator(pipe, UniformSelector(20), use_sample_weight=True)
    with (
        sklearn.config_context(enable_metadata_routing=True),
        pytest.raises(TypeError, match=r"no part of Pipeline requests it\. Call set_fit_request"),
    ):
        model.fit(X, Y)


def test_a_selector_without_weights_is_refused():
    from sklearn.preprocessing import FunctionTransformer

    first = FunctionTransformer(lambda X: np.arange(9))
    with pytest.raises(TypeError, match="needs a selector with the attribute sample_weight_"):
        CoresetEstimator(Ridge(), first, use_sample_weight=True).fit(X, Y)


def test_weights_of_the_selector_count_once():
    """Weights that the selector gets are in the masses that it gives to the estimator."""
    with sklearn.config_context(enable_metadata_routing=True):
        selector = KMeansSelector(20, random_state=0).set_fit_request(sample_weight=True)
        witness = Witness().set_fit_request(sample_weight=True)
        model = CoresetEstimator(witness, selector, use_sample_weight=True)
        Witness.seen.clear()
        model.fit(X, Y, sample_weight=GIVEN)
        alone = KMeansSelector(20, random_state=0).fit(X, sample_weight=GIVEN)
        np.testing.assert_array_equal(Witness.seen[-1], alone.sample_weight_)


def test_given_samples_are_fitted_too():
    given = np.zeros(60, dtype=bool)
    given[[3, 17]] = True
    with sklearn.config_context(enable_metadata_routing=True):
        selector = KMeansSelector(20, random_state=0)
        selector.set_fit_request(selected=True, sample_weight=False)
        model = CoresetEstimator(
            Witness().set_fit_request(sample_weight=True), selector, use_sample_weight=True
        )
        Witness.seen.clear()
        model.fit(X, Y, selected=given)
        assert model.sample_indices_[:2].tolist() == [3, 17]
        assert len(np.unique(model.sample_indices_)) == 22
        assert len(Witness.seen[-1]) == 22
        assert np.isclose(Witness.seen[-1].sum(), 60)
        # A search cuts the mask with the samples.
        search = GridSearchCV(model, {"selector__n_to_select": [5, 10]}, cv=2, error_score="raise")
        search.fit(X, Y, selected=given)
