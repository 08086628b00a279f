"""Pretrained models of the paper's experiments, and their features."""

import numpy as np
import pytest

from tests.paper._data_files import write_tree

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.slow  # it tests an example, not the package


def test_trunk_and_tail_together_are_the_model(paper, weights):
    pretrained = paper.models.resnet(weights / "resnet")
    model = transformers.ResNetForImageClassification.from_pretrained(weights / "resnet").eval()
    tail = pretrained.make_tail(model.config.num_labels, 0).eval()
    tail.head.load_state_dict(model.classifier[-1].state_dict())
    pixels = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted, found = model(pixels).logits, tail(pretrained.trunk(pixels))
    torch.testing.assert_close(found, wanted)


def test_tail_depends_only_on_its_seed(paper, weights):
    pretrained = paper.models.clip(weights / "clip")
    state = torch.random.get_rng_state()
    first, again, other = (pretrained.make_tail(3, seed) for seed in (0, 0, 1))
    assert torch.equal(first.weight, again.weight)
    assert not torch.equal(first.weight, other.weight)
    assert torch.equal(state, torch.random.get_rng_state())


def test_features_are_computed_once(paper, weights, tmp_path, monkeypatch):
    write_tree(tmp_path, [0, 1, 2], [0, 1, 2])
    train, test = paper.data.load("cars", tmp_path)
    pretrained = paper.models.clip(weights / "clip")
    calls = []
    compute = paper.models._compute

    def counted(*args):
        calls.append(args)
        compute(*args)

    monkeypatch.setattr(paper.models, "_compute", counted)
    folder = tmp_path / "features"
    first = paper.models.features(pretrained, train, folder, device="cpu", batch_size=2)
    again = paper.models.features(pretrained, train, folder, device="cpu", batch_size=3)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1, rtol=1e-5)
    assert len(calls) == 1
    paper.models.features(pretrained, test, folder, device="cpu")
    with torch.no_grad():  # the features of other weights go into another file
        next(pretrained.trunk.parameters()).add_(0.1)
    paper.models.features(pretrained, train, folder, device="cpu")
    assert len(calls) == 3


def test_partly_computed_features_are_not_kept(paper, weights, tmp_path, monkeypatch):
    write_tree(tmp_path, [0, 1, 2], [0, 1, 2])
    train, _ = paper.data.load("cars", tmp_path)
    pretrained = paper.models.clip(weights / "clip")
    opened, calls = train.open, []

    def breaks(i):
        calls.append(i)
        if len(calls) == 3:
            raise OSError("the disk is gone")
        return opened(i)

    train.open = breaks
    folder = tmp_path / "features"
    with pytest.raises(OSError, match="disk"):
        paper.models.features(pretrained, train, folder, device="cpu", batch_size=1)
    assert list(folder.iterdir()) == []
    assert paper.models.features(pretrained, train, folder, device="cpu").shape == (3, 8)
