"""Language models with labels of tokens: the loss is that of `model(..., labels=labels)`."""

import types
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sklearn_skmm import GradientSketcher
from tests.sketch._torch._models import M, N, Net, model_state
from tests.sketch._torch.test_transformers import GPT2, LLAMA, SMALL

transformers = pytest.importorskip("transformers", reason="needs transformers")

T = 6
IDS = torch.from_numpy(np.random.RandomState(0).randint(2, 20, size=(N, T)))
LENGTHS = torch.tensor([6, 4, 3, 6, 2])
MASK = (torch.arange(T) < LENGTHS[:, None]).long()
T5 = {
    "vocab_size": 20,
    "d_model": 8,
    "d_kv": 4,
    "d_ff": 9,
    "num_layers": 1,
    "num_heads": 2,
    "decoder_start_token_id": 0,
    "tie_word_embeddings": True,
}
BART = {
    "vocab_size": 20,
    "d_model": 8,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 9,
    "decoder_ffn_dim": 9,
    "max_position_embeddings": 12,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 1,
    "decoder_start_token_id": 1,
    "forced_eos_token_id": None,
}
MIXTRAL = LLAMA | {"num_local_experts": 2, "num_experts_per_tok": 1}


def causal(name, config, params, **more):
    return lambda: getattr(transformers, name)(getattr(transformers, config)(**params, **more))


CAUSAL = {
    "GPT2": causal("GPT2LMHeadModel", "GPT2Config", GPT2),
    "Llama": causal("LlamaForCausalLM", "LlamaConfig", LLAMA),
    "Bert decoder": causal("BertLMHeadModel", "BertConfig", SMALL, is_decoder=True),
    "OPT": causal(
        "OPTForCausalLM",
        "OPTConfig",
        {k: v for k, v in SMALL.items() if k != "intermediate_size"},
        ffn_dim=9,
        word_embed_proj_dim=8,
    ),
}


def build(make, dtype=torch.float64):
    torch.manual_seed(0)
    return make().to(dtype)


def own_gradients(model, X):
    """Return the gradients of the model's own loss, one sample at a time."""
    model = model.eval()
    chosen = [p for p in model.parameters() if p.requires_grad]
    rows = []
    for i in range(len(X["labels"])):
        loss = model(**{name: x[i : i + 1] for name, x in X.items()}).loss
        grads = torch.autograd.grad(loss, chosen, allow_unused=True)
        rows.append(
            torch.cat(
                [
                    (torch.zeros_like(p) if g is None else g).flatten()
                    for p, g in zip(chosen, grads, strict=True)
                ]
            )
        )
    return torch.stack(rows).double().numpy()


def assert_own_loss(make, X, dtype=torch.float64, y=None, rtol=None, expected_of=None):
    """Compare the sketch at several batch sizes with the loop over `model(**sample).loss`."""
    G = own_gradients(build(make, dtype), expected_of or X)
    assert np.isfinite(G).all()
    rtol = rtol or (1e-6 if dtype == torch.float64 else 1e-4)  # some compute losses in float32
    for batch_size in 1, 4:
        model = build(make, dtype)
        before = model_state(model)
        sketcher = GradientSketcher(
            M, model=model, target="label", batch_size=batch_size, random_state=0
        )
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            sketch = sketcher.fit_transform(X, y)
        expected = G @ sketcher.projection_.to_array()
        np.testing.assert_allclose(sketch, expected, rtol=0, atol=rtol * np.abs(expected).max())
        torch.testing.assert_close(model_state(model), before, rtol=0, atol=0)


LABELS = {
    "tokens": {"labels": IDS},
    "padding": {"attention_mask": MASK, "labels": IDS.masked_fill(MASK == 0, -100)},
    "left padding": {
        "attention_mask": MASK.flip(1),
        "labels": IDS.masked_fill(MASK.flip(1) == 0, -100),
    },
    # The model's own loss counts padding unless its label is -100.
    "padding that counts": {"attention_mask": MASK, "labels": IDS},
    "prompts": {
        "attention_mask": torch.ones_like(IDS),
        "labels": IDS.masked_fill(MASK == 1, -100).index_fill(1, torch.tensor([5]), 3),
    },
}


@pytest.mark.parametrize("labels", LABELS)
def test_labels_of_causal_models_are_shifted(labels):
    X = {"input_ids": IDS, **LABELS[labels]}
    assert_own_loss(CAUSAL["GPT2"], X)


@pytest.mark.slow
@pytest.mark.parametrize("name", CAUSAL)
def test_labels_of_every_causal_model_are_shifted(name):
    X = {"input_ids": IDS, **LABELS["padding"]}
    assert_own_loss(CAUSAL[name], X, torch.float32)


@pytest.mark.slow
def test_labels_of_causal_models_may_be_y_or_come_from_a_loader():
    X = {"input_ids": IDS, "attention_mask": MASK}
    labels = IDS.masked_fill(MASK == 0, -100)
    make = CAUSAL["GPT2"]
    assert_own_loss(make, X, y=labels, expected_of={**X, "labels": labels})
    rows = [{name: x[i] for name, x in {**X, "labels": labels}.items()} for i in range(N)]
    params = {"model": build(make), "target": "label", "random_state": 0}
    expected = GradientSketcher(M, **params).fit_transform(X, labels)
    loader = torch.utils.data.DataLoader(rows, batch_size=2)
    found = GradientSketcher(M, **params).fit_transform(loader)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)


# peft uses a name of transformers that is deprecated.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
@pytest.mark.parametrize("task", ["CAUSAL_LM", None])
def test_labels_of_adapted_causal_models_are_shifted(task):
    peft = pytest.importorskip("peft", reason="needs peft")

    def make():
        config = peft.LoraConfig(
            r=2,
            target_modules=["c_attn"],
            fan_in_fan_out=True,
            task_type=task,
            init_lora_weights=False,
        )
        return peft.get_peft_model(CAUSAL["GPT2"](), config)

    assert_own_loss(make, {"input_ids": IDS, **LABELS["padding"]})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "config", "params"),
    [
        ("BertForMaskedLM", "BertConfig", SMALL),
        ("BertForTokenClassification", "BertConfig", SMALL | {"num_labels": 20}),
        ("GPT2ForTokenClassification", "GPT2Config", GPT2 | {"num_labels": 20}),
    ],
)
def test_labels_at_the_same_position_are_not_shifted(name, config, params):
    labels = IDS.flip(1).masked_fill(MASK == 0, -100)
    X = {"input_ids": IDS, "attention_mask": MASK, "labels": labels}
    assert_own_loss(causal(name, config, params), X)
    # Without a loss of its own, and whatever the mask excludes, as for every other model.
    model = build(causal(name, config, params))
    plain = Net(lambda self, **kw: self.model(**kw).logits, model=model)
    plain.forward = types.MethodType(
        lambda self, input_ids, attention_mask: self.call(
            self, input_ids=input_ids, attention_mask=attention_mask
        ),
        plain,
    )
    params = {"target": "label", "random_state": 0}
    counting = {**X, "labels": IDS.flip(1)}
    np.testing.assert_allclose(
        GradientSketcher(M, model=model, **params).fit_transform(counting),
        GradientSketcher(M, model=plain, **params).fit_transform(counting),
        rtol=1e-9,
        atol=1e-12,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "config", "params"),
    [
        ("BertForSequenceClassification", "BertConfig", SMALL | {"num_labels": 3}),
        ("GPT2ForSequenceClassification", "GPT2Config", GPT2 | {"num_labels": 3}),
    ],
)
def test_labels_of_sequences_are_one_for_each_sample(name, config, params):
    X = {"input_ids": IDS, "attention_mask": MASK, "labels": torch.tensor([0, 2, 1, 1, 0])}
    assert_own_loss(causal(name, config, params), X)
    model = build(causal(name, config, params))
    GradientSketcher(M, model=model, target="label", random_state=0).fit_transform(X)
    assert model.config.problem_type is None  # the model was not called with labels


@pytest.mark.slow
def test_only_the_cross_entropy_at_labels_shifts_them():
    X = {"input_ids": IDS, "labels": IDS}
    params = {"model": build(CAUSAL["GPT2"]), "random_state": 0}
    shifted = GradientSketcher(M, target="label", **params).fit_transform(X)
    for more in {"target": "output"}, {"target": "sampled"}, {"target": "predicted"}:
        np.testing.assert_array_equal(
            GradientSketcher(M, **more, **params).fit_transform(X),
            GradientSketcher(M, **more, **params).fit_transform({"input_ids": IDS}),
        )
    by_callable = GradientSketcher(
        M, loss=lambda f, t: F.cross_entropy(f[:-1], t[1:]), target="label", **params
    )
    np.testing.assert_allclose(by_callable.fit_transform(X), shifted, rtol=1e-6, atol=1e-9)
    as_given = GradientSketcher(M, loss=F.cross_entropy, target="label", **params)
    assert not np.allclose(as_given.fit_transform(X), shifted, rtol=0.1)


@pytest.mark.slow
def test_labels_shifted_before_are_not_shifted_again():
    shifted = torch.cat([IDS[:, 1:], torch.full((N, 1), -100)], 1)
    params = {"model": build(CAUSAL["GPT2"]), "target": "label", "random_state": 0}
    expected = GradientSketcher(M, **params).fit_transform({"input_ids": IDS, "labels": IDS})
    for batch_size in 1, 4:
        sketcher = GradientSketcher(M, batch_size=batch_size, **params)
        with pytest.warns(UserWarning, match="shifted by one position already") as caught:
            found = sketcher.fit_transform({"input_ids": IDS, "labels": shifted})
        assert len(caught) == 1
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)
    mixed = torch.cat([IDS[:2], shifted[2:]])
    with pytest.raises(ValueError, match="shifted for all samples or for none"):
        GradientSketcher(M, batch_size=2, **params).fit_transform(
            {"input_ids": IDS, "labels": mixed}
        )


class Own(nn.Module):
    """A model of tokens with a loss of its own."""

    def __init__(self, loss):
        super().__init__()
        self.loss, self.embedding, self.head = loss, nn.Embedding(20, 4), nn.Linear(4, 20)

    def forward(self, input_ids, attention_mask=None, labels=None):
        logits = self.head(self.embedding(input_ids).cumsum(1).tanh())
        if labels is None:
            return types.SimpleNamespace(logits=logits, loss=None)
        return types.SimpleNamespace(logits=logits, loss=self.loss(logits, labels, attention_mask))


def entropy(logits, labels, **more):
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), **more)


def masked_and_shifted(logits, labels, mask):
    return entropy(logits[:, :-1], labels[:, 1:].masked_fill(mask[:, 1:] == 0, -100))


@pytest.mark.parametrize(
    "loss",
    [
        lambda logits, labels, mask: entropy(logits[:, :-1], labels[:, 1:]),
        lambda logits, labels, mask: entropy(logits, labels),
        masked_and_shifted,
    ],
)
@pytest.mark.parametrize("zeros", [False, True])
def test_any_module_with_a_loss_of_its_own_is_compared_with_it(loss, zeros):
    def make():
        model = Own(loss)
        if zeros:  # all classes equally probable, whatever the labels
            nn.init.zeros_(model.head.weight)
            nn.init.zeros_(model.head.bias)
        return model

    # The first batches have no padding, which only the last show.
    mask = MASK[[0, 3, 1, 2, 4]]
    labels = IDS.flip(1)
    X = {"input_ids": IDS, "attention_mask": mask, "labels": labels}
    if loss is not masked_and_shifted:
        X["labels"] = labels.masked_fill(mask == 0, -100)
    assert_own_loss(make, X)


@pytest.mark.parametrize(
    "returned",
    [
        lambda loss, logits: (loss, logits),
        lambda loss, logits: (logits, loss),
        lambda loss, logits: {"loss": loss, "logits": logits},
        lambda loss, logits: loss,
        lambda loss, logits: {"loss": loss[None], "logits": logits},
    ],
)
def test_models_may_return_their_loss_in_other_ways(returned):
    own = build(lambda: Own(lambda logits, labels, _: entropy(logits[:, :-1], labels[:, 1:])))

    class Returning(nn.Module):
        def __init__(self):
            super().__init__()
            self.own = own

        def forward(self, input_ids, labels=None):
            result = self.own(input_ids, labels=labels)
            return result.logits if labels is None else returned(result.loss, result.logits)

    X, params = {"input_ids": IDS, "labels": IDS}, {"target": "label", "random_state": 0}
    np.testing.assert_allclose(
        GradientSketcher(M, model=Returning(), **params).fit_transform(X),
        GradientSketcher(M, model=own, **params).fit_transform(X),
        rtol=1e-9,
        atol=1e-12,
    )


@pytest.mark.parametrize(
    ("loss", "match"),
    [
        (lambda logits, labels, mask: entropy(logits, labels, label_smoothing=0.1), "not known"),
        (lambda logits, labels, mask: entropy(logits, labels, ignore_index=3), "not known"),
        (lambda logits, labels, mask: 2 * entropy(logits[:, :-1], labels[:, 1:]), "not known"),
        (lambda logits, labels, mask: entropy(logits[:, :-2], labels[:, 2:]), "not known"),
        (lambda logits, labels, mask: labels.nothing, "fails if labels"),
    ],
)
def test_other_losses_of_tokens_are_refused(loss, match):
    model = build(lambda: Own(loss))
    X = {"input_ids": IDS, "labels": IDS.flip(1)}
    with pytest.raises(ValueError, match=f"(?s){match}.*pass as 'loss' a callable"):
        GradientSketcher(M, model=model, target="label", random_state=0).fit_transform(X)
    by_callable = GradientSketcher(M, model=model, loss=F.cross_entropy, random_state=0)
    assert by_callable.fit_transform(X).shape == (N, M)


@pytest.mark.slow
def test_loss_of_routers_is_refused():
    X = {"input_ids": IDS, "labels": IDS}
    model = build(
        causal("MixtralForCausalLM", "MixtralConfig", MIXTRAL, output_router_logits=True),
        torch.float32,
    )
    with pytest.raises(ValueError, match=r"meaning of labels .* is not known"):
        GradientSketcher(M, model=model, target="label", random_state=0).fit_transform(X)


def test_input_tokens_as_labels_are_refused_without_a_loss_that_explains_them():
    model = build(lambda: nn.Sequential(nn.Embedding(20, 4), nn.Linear(4, 20)))
    params = {"model": model, "target": "label", "random_state": 0}
    with pytest.raises(ValueError, match="The labels are the input tokens"):
        GradientSketcher(M, **params).fit_transform(IDS, IDS)
    expected = GradientSketcher(M, loss=F.cross_entropy, **params).fit_transform(IDS, IDS)
    answers = IDS.masked_fill(torch.arange(T) < 4, -100)  # the rest is a prompt
    with pytest.raises(ValueError, match="The labels are the input tokens"):
        GradientSketcher(M, **params).fit_transform(IDS, answers)
    masked = IDS.masked_fill(torch.arange(T) != 2, -100)  # as for a masked language model
    assert GradientSketcher(M, **params).fit_transform(IDS, masked).shape == expected.shape


SEQUENCES = {
    "T5": causal("T5ForConditionalGeneration", "T5Config", T5),
    "Bart": causal("BartForConditionalGeneration", "BartConfig", BART),
    "Marian": causal("MarianMTModel", "MarianConfig", BART | {"forced_eos_token_id": 1}),
}
# As many tokens as the encoder has, and fewer. The mask of the encoder belongs to neither.
DECODED = {n: IDS.flip(1)[:, :n].masked_fill(MASK.flip(0)[:, :n] == 0, -100) for n in (T, 4)}


@pytest.mark.slow
@pytest.mark.parametrize("n", DECODED)
@pytest.mark.parametrize("name", SEQUENCES)
def test_decoder_inputs_are_made_from_labels(name, n):
    X = {"input_ids": IDS, "attention_mask": MASK, "labels": DECODED[n]}
    assert_own_loss(SEQUENCES[name], X, torch.float32)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["output", "sampled", "predicted", "random"])
def test_decoder_inputs_are_made_from_labels_for_every_target(target):
    X = {"input_ids": IDS, "attention_mask": MASK, "labels": DECODED[4]}
    model = build(SEQUENCES["T5"])
    params = {"model": model, "target": target, "random_state": 0}
    sketch = GradientSketcher(M, **params).fit_transform(X)
    tokens = model.prepare_decoder_input_ids_from_labels(DECODED[4])
    np.testing.assert_array_equal(
        GradientSketcher(M, **params).fit_transform({**X, "decoder_input_ids": tokens}), sketch
    )
    # Positions without a label do not count.
    for i in range(N):
        if target in ("sampled", "random"):
            break  # the random numbers belong to positions of samples
        n = int((DECODED[4][i] != -100).sum())
        one = {name: x[i : i + 1] for name, x in X.items()}
        one["labels"] = one["labels"][:, :n]
        np.testing.assert_allclose(
            GradientSketcher(M, **params).fit_transform(one)[0], sketch[i], rtol=1e-5, atol=1e-9
        )


def test_labels_of_a_sequence_model_may_be_y():
    X = {"input_ids": IDS, "attention_mask": MASK}
    expected_of = {**X, "labels": DECODED[4]}
    assert_own_loss(SEQUENCES["T5"], X, y=DECODED[4], expected_of=expected_of)


# peft uses a name of transformers that is deprecated.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
def test_decoder_inputs_of_adapted_models():
    peft = pytest.importorskip("peft", reason="needs peft")

    def make():
        config = peft.LoraConfig(
            r=2, target_modules=["q"], task_type="SEQ_2_SEQ_LM", init_lora_weights=False
        )
        return peft.get_peft_model(SEQUENCES["T5"](), config)

    assert_own_loss(make, {"input_ids": IDS, "attention_mask": MASK, "labels": DECODED[4]})


@pytest.mark.slow
@pytest.mark.parametrize("target", ["output", "label"])
@pytest.mark.parametrize("name", ["T5", "Bart"])
def test_sequence_models_without_decoder_inputs_are_refused(name, target):
    sketcher = GradientSketcher(M, model=build(SEQUENCES[name]), target=target)
    for more in {}, {"labels": torch.zeros(N, dtype=torch.long)}:
        with pytest.raises(ValueError, match=r"column 'labels' .* or a column 'decoder_input_ids'"):
            sketcher.fit_transform({"input_ids": IDS, **more})


@pytest.mark.slow
def test_outputs_that_depend_on_labels_are_refused():
    # A model that makes its decoder inputs from labels, but only in its forward pass.
    small = BART | {"vocab_size": 20}
    model = build(causal("BlenderbotForConditionalGeneration", "BlenderbotConfig", small))
    X = {"input_ids": IDS, "attention_mask": MASK, "labels": DECODED[T]}
    sketcher = GradientSketcher(M, model=model, target="label", random_state=0)
    with pytest.raises((ValueError, TypeError), match="decoder_input_ids"):
        sketcher.fit_transform(X)


@pytest.mark.slow
def test_cache_of_a_sequence_model_depends_on_its_labels(tmp_path):
    X = {"input_ids": IDS, "attention_mask": MASK, "labels": DECODED[4].clamp(min=2)}
    other = {**X, "labels": X["labels"].clone().index_fill(1, torch.tensor([3]), -100)}
    params = {"model": build(SEQUENCES["T5"]), "random_state": 0}
    cached = GradientSketcher(M, cache_dir=tmp_path, **params)
    cached.fit_transform(X)
    with pytest.raises(ValueError, match="cache"):
        # The last label changes no decoder input, but which positions count.
        np.testing.assert_array_equal(
            cached.fit_transform(other), GradientSketcher(M, **params).fit_transform(other)
        )


# peft uses a name of transformers that is deprecated.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
@pytest.mark.parametrize("adapted", [False, True])
def test_gradient_checkpointing_of_transformers(adapted):
    peft = pytest.importorskip("peft", reason="needs peft") if adapted else None

    def make():
        model = build(CAUSAL["Llama"], torch.float32)
        if adapted:
            config = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
            model = peft.get_peft_model(model, config)
        return model.train()

    model = make()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # a newer name, which not all releases have
        model.gradient_checkpointing_enable()
    model.enable_input_require_grads()
    before = model_state(model)
    params = {"m": M, "dtype": "float64", "target": "label", "random_state": 0}
    X = {"input_ids": IDS, **LABELS["padding"]}
    sketch = GradientSketcher(model=model, **params).fit_transform(X)
    torch.testing.assert_close(model_state(model), before, rtol=0, atol=0)
    expected = GradientSketcher(model=make(), **params).fit_transform(X)
    np.testing.assert_allclose(sketch, expected, rtol=1e-5, atol=1e-9)
