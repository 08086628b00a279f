"""Sketched gradients of each layer and sketch, compared with one sample at a time."""

import pytest
from torch import nn

from tests.sketch._torch._models import numbers
from tests.sketch._torch._reference import check_against_loop
from tests.sketch._torch._zoo import ZOO

SKETCHES = [
    "auto",
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("gaussian", "sparse_sign", "product")
    ),
]


@pytest.mark.parametrize("sketch", SKETCHES)
@pytest.mark.parametrize("name", ZOO)
def test_sketch_matches_a_loop_over_samples(name, sketch):
    make, X, others = ZOO[name]
    assert check_against_loop(make, X, sketch=sketch) == others


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
def test_weight_norm_by_hooks_matches_a_loop_over_samples():
    # Its parameters are not named as in the rule of a linear layer.
    check_against_loop(
        lambda: nn.Sequential(nn.utils.weight_norm(nn.Linear(4, 4)), nn.Tanh()), numbers(4)
    )
