"""CoresetSampler without imbalanced-learn: the coreset, containers and metadata."""

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.feature_selection import SelectKBest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from sklearn_skmm import CoresetSampler, GradientSketcher, SkMMSelector, UniformSelector
from tests._classification import classification_data, network, pipeline


@pytest.fixture
def data():
    return classification_data()


def test_returns_the_given_samples_and_then_the_new_ones(data):
    X, y = data
    selector = SkMMSelector(30, stratify=True, random_state=0)
    weight = np.random.RandomState(0).uniform(size=200)
    given = [150, 7, 30]
    new = clone(selector).fit_transform(X, y, sample_weight=weight, selected=given)
    both = np.r_[7, 30, 150, new]
    sampler = CoresetSampler(selector)
    found = sampler.fit_resample(X, y, sample_weight=weight, selected=given)
    np.testing.assert_array_equal(sampler.sample_indices_, both)
    np.testing.assert_array_equal(found[0], X[both])
    np.testing.assert_array_equal(found[1], y[both])
    np.testing.assert_array_equal(sampler.selector_.sample_indices_, new)
    assert not hasattr(selector, "sample_indices_")
    # The same from `fit`, and with a mask; `selected` and weights are for the last step alone.
    mask = np.isin(np.arange(200), given)
    outer = CoresetSampler(make_pipeline(StandardScaler(with_mean=False), selector))
    outer.fit(X, y, sample_weight=weight, selected=mask)
    scaled = StandardScaler(with_mean=False).fit_transform(X)
    new = clone(selector).fit_transform(scaled, y, sample_weight=weight, selected=given)
    np.testing.assert_array_equal(outer.sample_indices_, np.r_[7, 30, 150, new])
    np.testing.assert_array_equal(outer.selector_[0].transform(X), scaled)


def test_steps_before_the_selector_get_the_targets(data):
    X, y = data
    pipe = make_pipeline(SelectKBest(k=3), SkMMSelector(20, random_state=0))
    sampler = CoresetSampler(pipe).fit(X, y)
    np.testing.assert_array_equal(sampler.sample_indices_, clone(pipe).fit_transform(X, y))


def test_without_given_samples_it_returns_what_the_selector_selects(data):
    X, y = data
    sampler = CoresetSampler(pipeline(20))
    found = sampler.fit_resample(X)
    rows = pipeline(20).fit_transform(X)
    np.testing.assert_array_equal(found[0], X[rows])
    assert found[1] is None
    np.testing.assert_array_equal(sampler.set_params(
        selector__skmmselector__n_to_select=8
    ).fit(X, y).sample_indices_, pipeline(8).fit_transform(X))  # fmt: skip
    assert not hasattr(sampler, "transform")
    assert not hasattr(sampler, "fit_transform")


def test_samples_and_targets_stay_in_their_containers(data):
    X, y = data
    rows = SkMMSelector(20, random_state=0).fit_transform(X)
    sampler = CoresetSampler(SkMMSelector(20, random_state=0))
    frame = pd.DataFrame(X, columns=[f"x{i}" for i in range(12)], index=np.arange(200)[::-1])
    series = pd.Series(y, index=frame.index, name="class")
    found = sampler.fit_resample(frame, series)
    pd.testing.assert_frame_equal(found[0], frame.iloc[rows])
    pd.testing.assert_series_equal(found[1], series.iloc[rows])
    assert sampler.get_feature_names_out().tolist() == list(frame.columns)
    found = sampler.fit_resample(X.tolist(), y.tolist())
    assert found == (X[rows].tolist(), y[rows].tolist())
    assert not hasattr(sampler, "feature_names_in_")  # of the frame before
    for container in (sparse.csr_array, sparse.dok_matrix):
        found = sampler.fit_resample(container(X), y)
        assert isinstance(found[0], container)
        np.testing.assert_array_equal(found[0].toarray(), X[rows])
    found = sampler.fit_resample(torch.as_tensor(X), torch.as_tensor(y))
    assert torch.equal(found[0], torch.as_tensor(X[rows]))
    assert torch.equal(found[1], torch.as_tensor(y[rows]))


def test_inputs_of_a_model_stay_in_their_containers(data):
    X = data[0].astype(np.float32)
    model = network()
    pipe = make_pipeline(
        GradientSketcher(m=6, model=model, random_state=0), SkMMSelector(20, random_state=0)
    )
    rows = clone(pipe).fit_transform(X)
    sampler = CoresetSampler(pipe)
    found = sampler.fit_resample({"input": X})[0]
    np.testing.assert_array_equal(found["input"], X[rows])
    found = sampler.fit_resample(torch.utils.data.TensorDataset(torch.as_tensor(X)))[0]
    assert isinstance(found, torch.utils.data.Dataset)
    np.testing.assert_array_equal(torch.stack([x for (x,) in found]).numpy(), X[rows])
    datasets = pytest.importorskip("datasets")
    found = sampler.fit_resample(datasets.Dataset.from_dict({"input": X.tolist()}))[0]
    assert isinstance(found, datasets.Dataset)
    np.testing.assert_array_equal(np.float32(found["input"][:]), X[rows])


def test_metadata_is_routed_only_if_the_selector_requests_it(data):
    X, y = data
    given = np.arange(200) % 20 == 0
    with sklearn.config_context(enable_metadata_routing=True):
        requests = SkMMSelector(20, random_state=0).set_fit_request(selected=True)
        new = clone(requests).fit_transform(X, selected=given)
        for inner in (requests, make_pipeline("passthrough", requests)):
            sampler = CoresetSampler(inner).fit(X, y, selected=given)
            np.testing.assert_array_equal(
                sampler.sample_indices_, np.r_[np.flatnonzero(given), new]
            )
        ignores = SkMMSelector(20, random_state=0).set_fit_request(selected=False)
        with pytest.raises(TypeError, match="unexpected argument"):
            CoresetSampler(ignores).fit(X, y, selected=given)
        assert not hasattr(sampler, "set_fit_request")


# name: (parameters of fit, error, message)
BAD = {
    "y short": ({"y": np.zeros(199)}, ValueError, r"inconsistent numbers of samples: \[200, 199\]"),
    "no selector": ({"selector": MinMaxScaler()}, TypeError, "'selector' parameter of CoresetSam"),
    "not an estimator": ({"selector": 3}, ValueError, "'selector' parameter of CoresetSampler"),
    "too many": ({"selector": UniformSelector(201)}, ValueError, "n_to_select=201"),
    "mask": ({"selected": np.ones(199, dtype=bool)}, ValueError, "The mask selected has 199"),
    "weights": ({"sample_weight": np.ones(199)}, ValueError, "sample_weight.shape"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_changes_nothing(data, name):
    X, y = data
    params, error, match = BAD[name]
    sampler = CoresetSampler(UniformSelector(20, random_state=0)).fit(X, y)
    sampler.set_params(selector=params.pop("selector", sampler.selector))
    before = dict(vars(sampler))
    with pytest.raises(error, match=match):
        sampler.fit_resample(X, **{"y": y, **params})
    assert vars(sampler) == before
