"""Per-sample gradients by a loop of autograd, and the comparison of sketches with them."""

import numpy as np
import torch

from sklearn_skmm import GradientSketcher
from tests.sketch._torch._models import M, build


def weighted(output, target):
    """A loss with a different weight for each output."""
    return (output * target).sum()


def tensor_of(result):
    for name in ("logits", "last_hidden_state"):
        if hasattr(result, name):
            return getattr(result, name)
    if isinstance(result, dict):
        return result["logits"]
    return result if isinstance(result, torch.Tensor) else result[0]


def loop_gradients(model, X, scalar=weighted, y=None):
    """Return per-sample gradients in evaluation mode, by a loop, and y, which is random if None."""
    model = model.eval()
    named = dict(model.named_parameters())
    chosen = [p for p in named.values() if p.requires_grad]
    if not chosen:
        chosen = [p.requires_grad_() for p in named.values()]
    rows, labels = [], []
    n_samples = len(next(iter(X.values())) if isinstance(X, dict) else X)
    for i in range(n_samples):
        if isinstance(X, dict):
            result = model(**{k: torch.tensor(v[i : i + 1]) for k, v in X.items()})
        else:
            x = torch.tensor(X[i : i + 1])
            result = model(x.to(next(iter(named.values())).dtype) if x.is_floating_point() else x)
        output = tensor_of(result)[0]
        generator = torch.Generator().manual_seed(i)
        label = torch.randn(output.shape, generator=generator).to(output) if y is None else y[i]
        grads = torch.autograd.grad(scalar(output, label), chosen, allow_unused=True)
        dense = [
            torch.zeros_like(p) if g is None else g.to_dense()
            for p, g in zip(chosen, grads, strict=True)
        ]
        rows.append(torch.cat([g.flatten() for g in dense]).detach())
        labels.append(label)
    return torch.stack(rows).double().numpy(), torch.stack(labels) if y is None else y


def check_against_loop(make, X, rtol=1e-9, dtype=torch.float64, **params):
    """Compare a sketch with the loop; return the source of each layer's gradients, except hooks."""
    G, y = loop_gradients(build(make, dtype), X)
    params = {"loss": weighted, "batch_size": 4, "random_state": 0} | params
    sketcher = GradientSketcher(M, model=build(make, dtype), **params)
    sketch = sketcher.fit_transform(X, y.detach())
    assert sketch.dtype == (np.float64 if dtype == torch.float64 else np.float32)
    assert sketcher.n_parameters_ == G.shape[1]
    expected = G @ sketcher.projection_.to_array()
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(sketch, expected, rtol=rtol, atol=rtol * np.abs(expected).max())
    return {row.layer: row.source for row in sketcher.sketch_plan_ if row.source != "hooks"}
