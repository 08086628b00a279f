"""Data sets, models and the Trainer of Hugging Face."""

import numpy as np
import pytest
import torch
from sklearn.pipeline import make_pipeline

from sklearn_skmm import GradientSketcher, SkMMSelector


@pytest.mark.slow
def test_trainer_trains_on_exactly_the_selected_rows(tmp_path):
    import datasets
    import transformers

    rng = np.random.RandomState(0)
    tokens = rng.randint(1, 30, size=(60, 6))
    ds = datasets.Dataset.from_dict(
        {
            "row": list(range(60)),
            "input_ids": tokens.tolist(),
            "attention_mask": np.ones_like(tokens).tolist(),
            "labels": (tokens[:, 0] % 2).tolist(),
        }
    )
    config = transformers.BertConfig(
        vocab_size=30, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=8, max_position_embeddings=8, num_labels=2,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.BertForSequenceClassification(config)
        pipe = make_pipeline(
            GradientSketcher(m=8, model=model, random_state=0), SkMMSelector(12, random_state=0)
        )
        rows = pipe.fit_transform(ds)
        coreset = ds.select(rows)
        assert coreset["row"][:] == rows.tolist()
        arrays = {name: np.array(ds[name][:]) for name in ("input_ids", "attention_mask")}
        np.testing.assert_array_equal(pipe.fit_transform(arrays), rows)
        seen = []

        def collate(samples):
            seen.extend(sample["row"] for sample in samples)
            return transformers.default_data_collator(
                [{name: sample[name] for name in sample if name != "row"} for sample in samples]
            )

        before = model.classifier.weight.detach().clone()
        trainer = transformers.Trainer(
            model=model,
            args=transformers.TrainingArguments(
                output_dir=tmp_path, max_steps=3, per_device_train_batch_size=4,
                use_cpu=True, report_to=[], save_strategy="no", disable_tqdm=True,
                remove_unused_columns=False, dataloader_pin_memory=False,
            ),
            train_dataset=coreset,
            data_collator=collate,
        )  # fmt: skip
        trainer.train()
    assert sorted(seen) == sorted(rows.tolist())  # one epoch reads each selected row once
    assert not torch.equal(model.classifier.weight, before)
