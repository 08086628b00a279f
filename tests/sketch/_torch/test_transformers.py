"""Models of transformers, adapters of peft and nets of skorch."""

import numpy as np
import pytest
import torch
from torch import nn

from sklearn_skmm import GradientSketcher
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


@pytest.mark.parametrize("sketch", ["auto", "product"])
@pytest.mark.parametrize(
    ("model", "config", "params"),
    [
        ("GPT2LMHeadModel", "GPT2Config", GPT2),  # with tied weights
        ("GPT2ForSequenceClassification", "GPT2Config", GPT2),
        ("BertModel", "BertConfig", SMALL),
        ("BertForSequenceClassification", "BertConfig", SMALL),
        ("LlamaForCausalLM", "LlamaConfig", LLAMA),
        ("GemmaForCausalLM", "GemmaConfig", LLAMA | {"head_dim": 4}),
        ("T5EncoderModel", "T5Config", {"vocab_size": 20, "d_model": 8, "d_kv": 4, "d_ff": 9}),
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


# peft uses a name of transformers that is deprecated.
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
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
