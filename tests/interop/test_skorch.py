"""Neural networks of skorch."""

import numpy as np
import torch

from sklearn_skmm import CoresetEstimator, GradientSketcher
from tests._classification import network, pipeline


def test_skorch_net_is_trained_on_the_coreset(data):
    import skorch

    X, y = data
    X = X.astype(np.float32)

    def net():
        return skorch.NeuralNetClassifier(
            network(),
            criterion=torch.nn.CrossEntropyLoss,
            max_epochs=3,
            lr=0.1,
            train_split=None,
            verbose=0,
        )

    model = CoresetEstimator(net(), pipeline())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model.fit(X, y)
        torch.manual_seed(1)
        rows = pipeline().fit_transform(X)
        alone = net().fit(X[rows], y[rows])
    np.testing.assert_array_equal(model.sample_indices_, rows)
    np.testing.assert_array_equal(model.predict_proba(X), alone.predict_proba(X))
    assert model.estimator_.history[-1, "train_loss"] < model.estimator_.history[0, "train_loss"]
    # The fitted net can be the model of a sketcher.
    sketch = GradientSketcher(m=6, model=model.estimator_, random_state=0).fit_transform(X)
    expected = GradientSketcher(m=6, model=model.estimator_.module_, random_state=0)
    np.testing.assert_array_equal(sketch, expected.fit_transform(X))
