"""Models that read values of their tensors in Python."""

import operator

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from sklearn_skmm import GradientSketcher
from sklearn_skmm.sketch._torch._value_reads import ValueReads
from tests.sketch._torch._models import M, Net

READS = {
    "if": lambda t, n: 1 if n else 0,
    "item": lambda t, n: n.item(),
    "tolist": lambda t, n: t.tolist(),
    "numpy": lambda t, n: t.numpy(),
    "asarray": lambda t, n: np.asarray(t),
    "DLPack": lambda t, n: np.from_dlpack(t),
    "storage": lambda t, n: t.untyped_storage()[0],
    "float": lambda t, n: float(n),
    "int": lambda t, n: int(n),
    "complex": lambda t, n: complex(n),
    "index": lambda t, n: operator.index(n),
    "range": lambda t, n: list(range(n)),
    "format": lambda t, n: f"{n}",
    "repr": lambda t, n: repr(n),
    "in": lambda t, n: 2 in t,
    "in a list": lambda t, n: n in [n + 1],
    "max": lambda t, n: max(n, n + 1),
    "any": lambda t, n: any(t),
    "equal": lambda t, n: torch.equal(t, t + 1),
    "allclose": lambda t, n: t.allclose(t),
    "is_nonzero": lambda t, n: torch.is_nonzero(n),
    "slice": lambda t, n: t[:n],
    "slices": lambda t, n: t[None][:, n:],
    "slice set": lambda t, n: operator.setitem(t, slice(n), 0),
    "arange": lambda t, n: torch.arange(n),
    "zeros": lambda t, n: torch.zeros((2, n)),
    "new_zeros": lambda t, n: t.new_zeros(n),
    "full": lambda t, n: torch.full(size=(n,), fill_value=0),
    "narrow": lambda t, n: t.narrow(0, 0, n),
    "view": lambda t, n: t.view(n, 2),
    "reshape": lambda t, n: torch.reshape(t, (n, 2)),
    "expand": lambda t, n: t[None].expand(n, 4),
    "repeat": lambda t, n: t.repeat(n),
    "split": lambda t, n: t.split(n),
    "select": lambda t, n: t.select(0, n),
    "topk": lambda t, n: t.topk(n),
    "pad": lambda t, n: F.pad(t, (0, n)),
    "interpolate": lambda t, n: F.interpolate(t[None, None].float(), 2 * n),
    "index by a tensor": lambda t, n: t[None][:, n],
    "alpha": lambda t, n: t.add(t, alpha=n),
    "slope": lambda t, n: F.leaky_relu(t.float(), n),
    "dim": lambda t, n: t[None, None].sum(n),
    "length of nonzero": lambda t, n: len(t.nonzero()),
    "rows of nonzero": lambda t, n: [*t.nonzero(as_tuple=True)[0]],
    "size of a selection": lambda t, n: t[t > n].numel(),
    "shape of a selection": lambda t, n: t.masked_select(t > n).shape,
    "shape of indexed rows": lambda t, n: t[(t > n).nonzero().squeeze(1)].shape,
    "number of values": lambda t, n: t.unique().size(0),
    "number of classes": lambda t, n: F.one_hot(t),
    "number of repeats": lambda t, n: len(t.repeat_interleave(t)),
}

ENCODER = nn.TransformerEncoder(nn.TransformerEncoderLayer(6, 2, 4, batch_first=True), 1).eval()
NO_READS = {
    "shapes": lambda t, n: (t.shape, len(t), t.numel(), t.ndim, t.dtype, t.device),
    "arithmetic": lambda t, n: 2 * t + n.clamp(max=3),
    "masks": lambda t, n: t[t > n].sum().shape,
    "routes": lambda t, n: (t + t[(t > n).nonzero().flatten()].sum()).shape,
    "classes": lambda t, n: F.one_hot(t, 4).shape,
    "repeats": lambda t, n: t.repeat_interleave(2).shape,
    "numbers": lambda t, n: F.leaky_relu(t.float(), 0.1).sum(0).add(n, alpha=2),
    "indices": lambda t, n: t[torch.arange(2)][None][:, 0:1],
    "rows": lambda t, n: [2 * row for row in t],
    "where": lambda t, n: torch.where(t > n, t, 0),
    "reshape": lambda t, n: t.reshape(2, -1).expand(2, 2).split(1),
    "stack": lambda t, n: torch.stack([t, t]).new_zeros(2, 3),
    "padding": lambda t, n: ENCODER(torch.rand(1, 4, 6), src_key_padding_mask=(t > n)[None]),
}


def reads(function, constants=()):
    mode = ValueReads(constants)
    with mode:
        function(torch.arange(4), torch.tensor(2))
    return mode.found


@pytest.mark.parametrize("name", READS)
def test_reads_are_noticed(name):
    assert reads(READS[name])


@pytest.mark.parametrize("name", NO_READS)
def test_operations_on_tensors_are_no_reads(name):
    assert not reads(NO_READS[name])


def test_constants_may_be_read_until_they_change():
    on = torch.tensor(1.0)
    assert not reads(lambda t, n: on.item(), [on])
    assert reads(lambda t, n: on.add_(n).item(), [on])
    assert reads(lambda t, n: (on + n).item(), [on])


def test_each_entry_into_the_context_begins_anew():
    mode = ValueReads([])
    with mode:
        torch.tensor(1).item()
    assert mode.found
    with mode:
        torch.tensor(1)
    assert not mode.found


def by_sum(self, x):
    return self.a(x) if x.sum() > 0 else self.b(x)


def detached_by_sum(self, x):
    h = self.a(x)
    return self.b(h.detach() if x.sum() > 0 else h)


class Branch(torch.autograd.Function):
    """Identity with a gradient that depends on the whole batch."""

    @staticmethod
    def forward(ctx, h, x):
        ctx.save_for_backward(x)
        return h.clone()

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g / 2 if (x < -1).any() else g, None


def in_autograd_function(self, x):
    return self.b(Branch.apply(self.a(x), x))


def in_hook_of_gradient(self, x):
    h = self.a(x)
    h.register_hook(lambda g: g / 2 if (x < -1).any() else g)
    return self.b(h)


def in_checkpoint(self, x):
    return checkpoint(lambda x: self.b(of_shape(self, x)), x, use_reentrant=False)


def of_shape(self, x):
    return self.a(x).detach() if len((x < -1).nonzero()) else self.a(x)


@pytest.mark.parametrize("forward", [in_autograd_function, in_hook_of_gradient, in_checkpoint])
def test_branches_in_later_batches_only(forward):
    for seed in range(20):
        torch.manual_seed(seed)
        X = torch.rand(40, 3).double()
        X[seed + 16] = -9
        model = Net(forward, a=nn.Linear(3, 3), b=nn.Linear(3, 4)).double()
        sketcher = GradientSketcher(M, model=model, random_state=0, batch_size=8).fit(X)
        together = sketcher.transform(X)
        alone = sketcher.set_params(batch_size=1).transform(X)
        np.testing.assert_allclose(together, alone, rtol=1e-12, atol=1e-15)


@pytest.mark.filterwarnings("ignore")
def test_control_flow_of_torch_is_refused():
    def forward(self, x):
        return torch.cond(x.sum() > 0, self.a, self.b, (x,))

    model = Net(forward, a=nn.Linear(3, 4), b=nn.Linear(3, 4))
    with pytest.raises(ValueError, match=r"such as torch\.cond|without gradients"):
        GradientSketcher(M, model=model).fit(torch.rand(4, 3))


def test_frozen_encoder_with_padding():
    """torch uses nested tensors, without gradients, only if all padding is on the right."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True, dropout=0.0)
    model = Net(
        lambda self, x: self.head(self.encoder(x, src_key_padding_mask=x[..., 0] < 0).mean(1)),
        encoder=nn.TransformerEncoder(layer, 1),
        head=nn.Linear(4, 3),
    ).double()
    X = torch.rand(12, 5, 4).double()
    X[:, 3:, 0] = -1
    X[9, :, 0] = torch.tensor([-1, 1, 1, 1, -1])
    params = {"model": model, "layers": "head", "random_state": 0}
    sketcher = GradientSketcher(M, batch_size=6, **params).fit(X)
    together = sketcher.transform(X)
    alone = sketcher.set_params(batch_size=1).transform(X)
    np.testing.assert_allclose(together, alone, rtol=1e-9)


@pytest.mark.parametrize("seed", range(20))
def test_branches_on_the_whole_batch(seed):
    torch.manual_seed(seed)
    X = torch.rand(40, 3).double()
    X[seed + 2] *= -1  # the only sample that takes the other branch when it is alone
    params = {"m": M, "random_state": 0, "batch_size": 40}
    model = Net(by_sum, a=nn.Linear(3, 4), b=nn.Linear(3, 4)).double()
    with pytest.raises(ValueError, match="treat each sample independently"):
        GradientSketcher(model=model, **params).fit_transform(X)
    model = Net(detached_by_sum, a=nn.Linear(3, 3), b=nn.Linear(3, 4)).double()
    sketcher = GradientSketcher(model=model, **params).fit(X)
    together = sketcher.transform(X)
    alone = sketcher.set_params(batch_size=1).transform(X)
    np.testing.assert_allclose(together, alone, rtol=1e-12)
