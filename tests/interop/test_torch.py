"""Tensors, data sets and samplers of PyTorch."""

import numpy as np
import pytest
import torch
from sklearn.pipeline import make_pipeline

from sklearn_skmm import GradientSketcher, SkMMSelector, UniformSelector
from tests._classification import network
from tests._selectors import selector_classes


def test_selected_indices_define_a_subset_and_a_sampler(data):
    X, y = data
    images = torch.as_tensor(X, dtype=torch.float32)
    dataset = torch.utils.data.TensorDataset(images, torch.as_tensor(y))
    pipe = make_pipeline(
        GradientSketcher(m=6, model=network(), random_state=0), SkMMSelector(40, random_state=0)
    )
    rows = pipe.fit_transform(dataset)
    np.testing.assert_array_equal(rows, pipe.fit_transform(images.numpy()))
    subset = torch.utils.data.Subset(dataset, rows)
    loaded = torch.cat([x for x, _ in torch.utils.data.DataLoader(subset, batch_size=7)])
    np.testing.assert_array_equal(loaded.numpy(), X[rows].astype(np.float32))
    sampler = torch.utils.data.SubsetRandomSampler(rows)
    labels = torch.cat(
        [x for x, _ in torch.utils.data.DataLoader(dataset, batch_size=7, sampler=sampler)]
    )
    order = np.lexsort(labels.numpy().T), np.lexsort(loaded.numpy().T)
    np.testing.assert_array_equal(labels[order[0]], loaded[order[1]])
    # A subset can be the input of another selection.
    again = pipe.set_params(skmmselector__n_to_select=10).fit_transform(subset)
    np.testing.assert_array_equal(again, pipe.fit_transform(images.numpy()[rows]))


def test_fit_resample_of_tensors_returns_tensors(data):
    X, y = data
    X_part, y_part = UniformSelector(30, random_state=0).fit_resample(
        torch.as_tensor(X), torch.as_tensor(y)
    )
    rows = UniformSelector(30, random_state=0).fit_transform(X)
    assert torch.equal(X_part, torch.as_tensor(X[rows]))
    assert torch.equal(y_part, torch.as_tensor(y[rows]))


@pytest.mark.slow
def test_array_api_dispatch_does_not_change_results(run_python):
    # SciPy reads the environment variable at import, so this needs a new process. Selectors always
    # compute in NumPy. An estimator that supports the array API is fitted on tensors.
    code = """
        import numpy as np, sklearn, torch
        from sklearn.linear_model import Ridge
        from sklearn_skmm import CoresetEstimator, GradientSketcher
        from tests._selectors import make, selector_classes

        rng = np.random.RandomState(0)
        X, y = rng.normal(size=(80, 6)), np.arange(80) % 2
        tensor, labels = torch.as_tensor(X), torch.as_tensor(y)
        sketch = GradientSketcher(4, random_state=0).fit_transform(X)
        plain = {
            (cls, stratify): make(cls, 20, stratify=stratify).fit(X, y)
            for cls in selector_classes() for stratify in (False, True)
        }
        with sklearn.config_context(array_api_dispatch=True):
            for (cls, stratify), expected in plain.items():
                selector = make(cls, 20, stratify=stratify).fit(tensor, labels)
                assert (selector.sample_indices_ == expected.sample_indices_).all(), cls
                assert (selector.transform(tensor, labels) == expected.sample_indices_).all(), cls
                assert np.isclose(selector.score(tensor), expected.score(X), rtol=1e-12), cls
                rows, _ = make(cls, 20, stratify=stratify).fit_resample(tensor, labels)
                assert torch.equal(rows, tensor[expected.sample_indices_]), cls
            found = GradientSketcher(4, random_state=0).fit_transform(tensor)
            assert (found == sketch).all()
            model = CoresetEstimator(Ridge(solver="svd"), selector).fit(tensor, labels.double())
            assert isinstance(model.predict(tensor), torch.Tensor)
            rows = model.sample_indices_
            assert torch.equal(
                model.predict(tensor),
                Ridge(solver="svd").fit(tensor[rows], labels.double()[rows]).predict(tensor),
            )
        print(len(plain))
    """
    assert run_python(code, SCIPY_ARRAY_API="1") == str(2 * len(selector_classes()))
