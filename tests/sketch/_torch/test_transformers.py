"""Models of transformers, adapters of peft and nets of skorch."""

import numpy as np
import pytest
import torch
from torch import nn

from sklearn_skmm import GradientSketcher
from sklearn_skmm.sketch._torch import _engine
from tests.sketch._torch._models import M, model_state, norm, numbers, tokens
from tests.sketch._torch._reference import check_against_loop

TEXT = {
    "input_ids": tokens(20, 6),
    "attention_mask": (np.arange(6) < np.array([6, 4, 3, 6, 2])[:, None]).astype(int),
}

SMALL = {
    "vocab_size": 20,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "max_position_embeddings": 9,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 1,
}

GPT2 = {
    "vocab_size": 20,
    "n_embd": 8,
    "n_layer": 2,
    "n_head": 2,
    "n_positions": 9,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 1,
}

LLAMA = SMALL | {"num_key_value_heads": 1}


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.fixture(autouse=True)
def batches_stay_together(monkeypatch):
    """Fail if a batch is sketched one sample at a time because values were read."""

    def fail(*args):
        raise AssertionError("values were read")

    monkeypatch.setattr(_engine, "check_all_alone", fail)


@pytest.mark.parametrize("sketch", ["auto", "product"])
@pytest.mark.parametrize(
    ("model", "config", "params"),
    [
        ("GPT2LMHeadModel", "GPT2Config", GPT2),  # with tied weights
        slow("GPT2ForSequenceClassification", "GPT2Config", GPT2),
        ("BertModel", "BertConfig", SMALL),
        slow("BertForSequenceClassification", "BertConfig", SMALL),
        slow("LlamaForCausalLM", "LlamaConfig", LLAMA),
        slow("GemmaForCausalLM", "GemmaConfig", LLAMA | {"head_dim": 4}),
        slow("T5EncoderModel", "T5Config", {"vocab_size": 20, "d_model": 8, "d_kv": 4, "d_ff": 9}),
    ],
)
def test_transformers_match_a_loop_over_samples(model, config, params, sketch):
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    model, config = getattr(transformers, model), getattr(transformers, config)(**params)
    # Parts of some models are computed in single precision whatever the precision of the model.
    single = {"dtype": torch.float32, "rtol": 1e-4}
    exact = model.__name__.startswith(("GPT2", "Bert"))
    slow = check_against_loop(
        lambda: model(config), TEXT, sketch=sketch, **({} if exact else single)
    )
    # T5 computes its embedding of relative positions once for all samples, not in rows.
    assert all("relative_attention_bias" in layer for layer in slow)


class WithHead(nn.Module):
    """An encoder, the mean over its tokens, and a linear layer."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(8, 3)

    def forward(self, input_ids, attention_mask):
        h = self.encoder(input_ids=input_ids, attention_mask=attention_mask)[0]
        mask = attention_mask[..., None].to(h)
        return self.head((h * mask).sum(1) / mask.sum(1))


class WithoutPadding(nn.Module):
    """Embeddings and layers of ModernBERT without attention, on the tokens that are no padding."""

    def __init__(self, model):
        super().__init__()
        self.embeddings, self.layers, self.norm = model.embeddings, model.layers, model.final_norm

    def forward(self, input_ids, attention_mask):
        mask = attention_mask.bool()
        h = self.embeddings(input_ids[mask][None])
        for layer in self.layers:
            h = h + layer.mlp(layer.mlp_norm(h))
        h = self.norm(h)[0]
        return (h.new_zeros(*mask.shape, 8).index_put((mask,), h),)


SWITCH = {
    "vocab_size": 20,
    "d_model": 8,
    "d_kv": 4,
    "d_ff": 9,
    "num_heads": 2,
    "num_layers": 2,
    "num_sparse_encoder_layers": 2,
    "num_experts": 3,
}

MODERN = SMALL | {"cls_token_id": 1, "sep_token_id": 1}

# Encoder, configuration, and the layers that are differentiated sample by sample.
ENCODERS = {
    "experts": (
        "SwitchTransformersEncoderModel",
        ("SwitchTransformersConfig", SWITCH),
        ("layer_norm", "relative_attention_bias", "classifier"),
    ),
    "loop over experts": (
        "MixtralModel",
        (
            "MixtralConfig",
            LLAMA | {"num_local_experts": 3, "experts_implementation": "eager"},
        ),
        ("mlp.experts", "mlp.gate"),
    ),
    "padding": ("ModernBertModel", ("ModernBertConfig", MODERN), ()),
    "no padding": ("ModernBertModel", ("ModernBertConfig", MODERN), ()),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("size", [2, 5])
def test_experts_and_unpadded_tokens_match_a_loop_over_samples(name, size):
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    model, (config, params), exact = ENCODERS[name]
    if not hasattr(transformers, model):
        pytest.skip(f"needs {model}")

    def make():
        encoder = getattr(transformers, model)(getattr(transformers, config)(**params))
        return WithHead(WithoutPadding(encoder) if name == "no padding" else encoder)

    slow = check_against_loop(make, TEXT, batch_size=size, dtype=torch.float32, rtol=1e-4)
    assert all(layer.endswith(exact) for layer in slow)


# peft uses a name of transformers that is deprecated.
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
@pytest.mark.slow
@pytest.mark.parametrize("initialised", [True, False])
def test_peft_adapters_match_a_loop_over_samples(initialised):
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    peft = pytest.importorskip("peft", reason="needs peft")

    def make():
        base = transformers.GPT2LMHeadModel(transformers.GPT2Config(**GPT2))
        config = peft.LoraConfig(
            r=2, target_modules=["c_attn"], fan_in_fan_out=True, init_lora_weights=initialised
        )
        return peft.get_peft_model(base, config)

    assert check_against_loop(make, TEXT) == {}
    model = make()
    before = model_state(model)
    sketcher = GradientSketcher(M, model=model, random_state=0).fit(TEXT)
    sketcher.transform(TEXT)
    torch.testing.assert_close(model_state(model), before, rtol=0, atol=0)
    assert sketcher.n_parameters_ == 2 * (2 * 8 + 2 * 24)
    assert all("lora" in row.layer for row in sketcher.sketch_plan_)


def test_fitted_skorch_net_is_a_model():
    skorch = pytest.importorskip("skorch", reason="needs skorch")
    net = skorch.NeuralNetClassifier(norm(nn.Tanh)(), max_epochs=1, verbose=0, train_split=None)
    sketcher = GradientSketcher(M, model=net, random_state=0)
    X = numbers(4).astype("float32")
    with pytest.raises(TypeError, match="a fitted skorch net"):
        sketcher.fit(X)
    net.fit(X, np.array([0, 1, 2, 3, 0]))
    expected = GradientSketcher(M, model=net.module_, random_state=0).fit_transform(X)
    np.testing.assert_array_equal(sketcher.fit_transform(X), expected)
