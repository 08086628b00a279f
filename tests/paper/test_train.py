"""Training of the last layers in the paper's experiments."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.slow  # it tests an example, not the package


def test_only_the_last_two_layers_are_trained(paper, weights):
    pretrained = paper.models.resnet(weights / "resnet")
    tail, before = pretrained.make_tail(3, 0), pretrained.make_tail(3, 0)
    rng = np.random.RandomState(0)
    X = rng.uniform(size=(20, 2, 8, 2, 2)).astype(np.float16)
    recipe = paper.train.Recipe(lr=0.01, epochs=2)
    paper.train.fit(tail, X, rng.randint(3, size=20), recipe=recipe, seed=0, device="cpu")
    changed = {
        name
        for (name, new), old in zip(tail.named_parameters(), before.parameters(), strict=True)
        if not torch.equal(new, old)
    }
    assert changed == {"convolution.weight", "head.weight", "head.bias"}
    assert not tail.training


def test_watch_sees_the_predictions_before_each_step(paper):
    """With one batch per epoch, these are the predictions after one epoch fewer."""
    rng = np.random.RandomState(0)
    X, y = rng.normal(size=(20, 4)).astype(np.float32), rng.randint(3, size=20)
    seen = []

    def tail(epochs, **kwargs):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            layer = torch.nn.Linear(4, 3)
        recipe = paper.train.Recipe(lr=0.1, epochs=epochs)
        return paper.train.fit(layer, X, y, recipe=recipe, seed=0, device="cpu", **kwargs)

    tail(4, watch=lambda epoch, batch, output: seen.append((epoch, batch, output)))
    for epochs, (epoch, batch, output) in enumerate(seen):
        assert epoch == epochs
        np.testing.assert_array_equal(batch, np.arange(20))
        wanted = paper.train.predict(tail(epochs), X, device="cpu")
        np.testing.assert_allclose(output, wanted, rtol=1e-5, atol=1e-6)


def test_last_inputs_are_the_inputs_of_the_last_layer(paper, weights):
    X = np.random.RandomState(0).uniform(size=(7, 2, 8, 2, 2)).astype(np.float16)
    tail = paper.models.resnet(weights / "resnet").make_tail(3, 0)
    inputs = paper.train.last_inputs(tail, X, device="cpu")
    assert inputs.shape == (7, 8)
    head = tail.head
    output = inputs @ head.weight.detach().numpy().T + head.bias.detach().numpy()
    np.testing.assert_allclose(output, paper.train.predict(tail, X, device="cpu"), rtol=1e-5)
    assert not head._forward_pre_hooks
