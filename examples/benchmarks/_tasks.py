"""Classification and regression tasks, each with the loss as a function of the coreset."""

from collections.abc import Callable
from copy import deepcopy
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import real
import table1
import torch
from sklearn import datasets
from sklearn.compose import TransformedTargetRegressor
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import PolynomialFeatures, StandardScaler
from sklearn.svm import SVC, SVR

from sklearn_skmm import GradientSketcher


def error_rate(model, X, y, X_test, y_test, indices, weight=None):
    """Return the test error of a classifier that is fitted on the coreset."""
    if len(np.unique(y[indices])) == 1:
        return float(np.mean(y_test != y[indices[0]]))
    model.fit(X[indices], y[indices], sample_weight=weight)
    return 1.0 - model.score(X_test, y_test)


def relative_error(model, X, y, X_test, y_test, indices, weight=None):
    """Return the squared error, relative to the variance, of a regressor fitted on the coreset."""
    predicted = model.fit(X[indices], y[indices], sample_weight=weight).predict(X_test)
    return float(np.mean(np.square(predicted - y_test)) / np.var(y_test))


def classification(C, *data):
    """Return the features and the test error as a function of the coreset."""
    return data[0], partial(error_rate, LogisticRegression(C=C, max_iter=300), *data)


def regression(*data):
    """Return the features and the relative squared error as a function of the coreset."""
    return data[0], partial(relative_error, RidgeCV(np.logspace(-3, 4, 15)), *data)


def split(X, y, seed, *, test_size=0.25, stratify=False, scale=True):
    """Split the data and, by default, standardise with the statistics of the pool."""
    parts = train_test_split(
        X, y, test_size=test_size, random_state=seed, stratify=y if stratify else None
    )
    X, X_test, y, y_test = parts
    if scale:
        scaler = StandardScaler().fit(X)
        X, X_test = scaler.transform(X), scaler.transform(X_test)
    return X, y, X_test, y_test


def table(load, seed, **params):
    """Split one of the data sets that scikit-learn includes."""
    return split(*load(return_X_y=True), seed, **params)


def digits(seed):
    X, y, X_test, y_test = table(
        datasets.load_digits, seed, test_size=0.5, stratify=True, scale=False
    )
    return X / 16, y, X_test / 16, y_test


def imbalanced(seed):
    """Make five classes of two clusters each, from 60 % to 4 % of the samples."""
    X, y = datasets.make_classification(
        4000,
        20,
        n_informative=8,
        n_redundant=4,
        n_classes=5,
        n_clusters_per_class=2,
        weights=[0.6, 0.2, 0.1, 0.06, 0.04],
        class_sep=1.5,
        random_state=seed,
    )
    return split(X, y, seed, stratify=True)


def heavy_tails(seed):
    """Make data of low effective rank, rows scaled by |t₃|, and a linear target with t₃ noise."""
    rng = np.random.RandomState(seed)
    X, _ = datasets.make_regression(
        4000, 100, effective_rank=15, tail_strength=0.6, random_state=seed
    )
    X *= np.abs(rng.standard_t(3, (len(X), 1)))
    X /= X.std()
    y = X @ rng.normal(size=100)
    return split(X, y / y.std() + 0.5 * rng.standard_t(3, len(X)), seed, scale=False)


def quadratic(X, y, seed):
    """Add all products of two columns: this gives outliers and a target not linear in them."""
    return split(PolynomialFeatures(2, include_bias=False).fit_transform(X), y, seed)


def quadratic_friedman(seed):
    X, y = datasets.make_friedman1(5000, 10, noise=1.0, random_state=seed)
    rng = np.random.RandomState(seed)
    skew = np.exp(0.4 * rng.normal(size=X.shape))
    return quadratic((X - 0.5) * np.sqrt(12) * skew, y, seed)


def quadratic_diabetes(seed):
    X, y = datasets.load_diabetes(return_X_y=True, scaled=False)
    return quadratic(StandardScaler().fit_transform(X), y, seed)


@cache
def files(data, name):
    """Return the task of this name from ``real.py``, or None."""
    found = [task for task in real.tasks(data) if task[0] == name]
    return found[0][1:] if found else None


@cache
def real_table(data, name):
    """Return the pool, the test set and the kind of one of the tasks in ``tasks.npz``."""
    with np.load(Path(data) / "tasks.npz") as arrays:
        X, y, kind = (arrays[f"{name}__{key}"] for key in ("X", "y", "kind"))
    size = min(6000, int(0.7 * len(X)))
    X, test = X.astype(float), slice(size, size + 3000)
    return X[:size], y[:size], X[test], y[test], str(kind)


def table_of_file(name, seed, data):
    """Draw 80 % of the pool, and return its features and the losses of two learners.

    Columns are standardised, clipped to ±8 and divided by the root of their number. Regression on
    fewer than 15 columns gets products of two.
    """
    X, y, X_test, y_test, kind = real_table(data, name)
    rows = np.random.RandomState(seed).permutation(len(X))[: int(0.8 * len(X))]
    X, y = X[rows], y[rows]
    if kind == "r" and X.shape[1] < 15:
        scaler, products = StandardScaler().fit(X), PolynomialFeatures(2, include_bias=False)
        X, X_test = (products.fit_transform(scaler.transform(part)) for part in (X, X_test))
    scaler = StandardScaler().fit(X)
    X, X_test = (
        np.clip(scaler.transform(part), -8, 8) / np.sqrt(X.shape[1]) for part in (X, X_test)
    )
    if kind == "c":
        loss = error_rate
        learners = {"linear": LogisticRegression(C=10, max_iter=300), "RBF": SVC(C=10)}
    else:
        loss = relative_error
        learners = {
            "linear": RidgeCV(np.logspace(-3, 4, 15)),
            # The targets of the coreset are standardised.
            "RBF": TransformedTargetRegressor(SVR(C=10), transformer=StandardScaler()),
        }

    def losses(indices, weight=None):
        return {
            learner: loss(model, X, y, X_test, y_test, indices, weight)
            for learner, model in learners.items()
        }

    return X, losses


@cache
def mixture(task_seed):
    return table1.Task(task_seed)


def gmm(task_seed):
    task = mixture(task_seed)
    return task.X, lambda indices: task.risks(indices)[0]


def fit(model, parameters, X, y, steps, lr):
    """Minimise the cross entropy with full-batch AdamW."""
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=1e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(X), y).backward()
        optimizer.step()


@cache
def pretrained_on_digits():
    """Return a network trained on the digits 0 to 4, and the other digits as pool and test set."""
    torch.manual_seed(0)
    X, y = datasets.load_digits(return_X_y=True)
    X = (X / 16).astype(np.float32)
    model = torch.nn.Sequential(
        torch.nn.Linear(64, 64),
        torch.nn.ReLU(),
        torch.nn.Linear(64, 32),
        torch.nn.ReLU(),
        torch.nn.Linear(32, 10),
    )
    old = torch.from_numpy(X[y < 5]), torch.from_numpy(y[y < 5])
    fit(model, model.parameters(), *old, 200, 1e-2)
    parts = train_test_split(
        X[y >= 5], y[y >= 5], test_size=0.4, stratify=y[y >= 5], random_state=0
    )
    return model, *parts


@cache
def pretrained_on_fashion(data):
    """Return a CNN trained on the classes 0 to 4, and the other classes as pool and test set."""
    torch.manual_seed(0)
    images, labels = (
        real.load_idx(f"{data}/fashion-mnist/train-{kind}-ubyte.gz")
        for kind in ("images-idx3", "labels-idx1")
    )
    X, y = (images[:16_000, None] / 255).astype(np.float32), labels[:16_000].astype(np.int64)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 16, 3, stride=2, padding=1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(16, 32, 3, stride=2, padding=1),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(32 * 49, 64),
        torch.nn.ReLU(),
        torch.nn.Linear(64, 10),
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for batch in np.array_split(np.flatnonzero(y < 5)[: 6 * 1024], 48) * 2:
        optimizer.zero_grad()
        output = model(torch.from_numpy(X[batch]))
        torch.nn.functional.cross_entropy(output, torch.from_numpy(y[batch])).backward()
        optimizer.step()
    parts = train_test_split(
        X[y >= 5], y[y >= 5], test_size=0.5, stratify=y[y >= 5], random_state=0
    )
    return model, *parts


def finetuning(pretrained, seed, target="auto"):
    """Return sketched gradients of the last two layers, and the error after finetuning them."""
    torch.set_num_threads(1)
    model, X, X_test, y, y_test = pretrained
    params = {"m": 96, "layers": [-2, -1], "target": target, "random_state": seed}
    sketch = GradientSketcher(model=model, **params).fit_transform(X)
    # The layers before the last two are frozen, so their output is computed once.
    with torch.no_grad():
        inputs, inputs_test = (model[:-3](torch.from_numpy(part)) for part in (X, X_test))

    def loss(indices):
        tuned = deepcopy(model[-3:])
        fit(tuned, tuned.parameters(), inputs[indices], torch.from_numpy(y[indices]), 300, 3e-2)
        with torch.no_grad():
            return float((tuned(inputs_test).argmax(1).numpy() != y_test).mean())

    return sketch, loss


class Task(NamedTuple):
    """One task of the comparison."""

    kind: str
    held_out: bool
    sizes: tuple[int, ...]
    # (seed, data) -> features or sketch, and the loss of a coreset, or of several learners by name
    draw: Callable
    m: int | None = 96  # None if selection works on what `draw` returns
    needs: str | None = None  # the data set or the file that it needs
    takes_weights: bool = True  # whether the loss of a coreset takes weights

    def available(self, data) -> bool:
        """Return whether the directory has the data that the task needs."""
        if self.needs is None or data is None:
            return self.needs is None
        return (Path(data) / self.needs).exists() or files(data, self.needs) is not None


# The tasks of ``tasks.npz``: name, kind, sizes.
TABLES = [
    ("letter", "classification", (20, 50, 100, 200)),
    ("dna", "classification", (20, 50, 100, 200)),
    ("flights_delay", "classification", (20, 50, 100, 200)),
    ("boston", "regression", (20, 50)),
    ("shuttle", "classification", (20, 50, 100, 200)),
    ("soybean", "classification", (20, 50, 100)),
    ("vehicle", "classification", (20, 50, 100)),
    ("spam", "classification", (20, 50, 100, 200)),
    ("hpc", "classification", (20, 50, 100, 200)),
    ("credit", "classification", (20, 50, 100, 200)),
    ("sacramento", "regression", (20, 50, 100)),
    ("concrete", "regression", (20, 50, 100)),
    ("check_times", "regression", (20, 50, 100, 200)),
    ("tate_minilm", "classification", (20, 50, 100, 200)),
]
# Selection works on embeddings or gradients of a network in these tasks.
DEEP = {"R52", "tate_minilm", "finetuned on digits", "finetuned on Fashion-MNIST"}
DEEP |= {"the same, gradients at predictions"}
# The seven of `TABLES` on which the layout of cells was designed.
SEVEN = {name for name, _, _ in TABLES[:7]}

TASKS = {
    name: Task(
        kind, False, sizes, lambda r, d, name=name: table_of_file(name, r, d), None, "tasks.npz"
    )
    for name, kind, sizes in TABLES
} | {
    "R52": Task(
        "classification",
        False,
        (50, 100, 200, 500),
        lambda r, d: classification(10, *files(d, "R52")),
        needs="R52",
    ),
    "digits": Task(
        "classification",
        False,
        (20, 50, 100, 200),
        lambda r, d: classification(10, *digits(r)),
    ),
    "imbalanced": Task(
        "classification",
        False,
        (20, 50, 100, 300),
        lambda r, d: classification(1, *imbalanced(r)),
    ),
    "GMM, seed 0": Task(
        "regression", False, (24, 48, 80, 120, 400), lambda r, d: gmm(0), 32, takes_weights=False
    ),
    "diabetes": Task(
        "regression",
        False,
        (10, 20, 50, 100),
        lambda r, d: regression(*table(datasets.load_diabetes, r, scale=True)),
    ),
    "friedman1": Task(
        "regression",
        False,
        (10, 20, 50, 200, 1000),
        lambda r, d: regression(
            *split(*datasets.make_friedman1(4000, 10, noise=1.0, random_state=r), r)
        ),
    ),
    "heavy tails": Task(
        "regression",
        False,
        (20, 50, 100, 400),
        lambda r, d: regression(*heavy_tails(r)),
    ),
    "quadratic friedman1": Task(
        "regression",
        False,
        (20, 50, 100, 200, 400),
        lambda r, d: regression(*quadratic_friedman(r)),
    ),
    "finetuned on digits": Task(
        "classification",
        False,
        (10, 20, 40, 80, 160),
        lambda r, d: finetuning(pretrained_on_digits(), r),
        None,
        takes_weights=False,
    ),
    "the same, gradients at predictions": Task(
        "classification",
        False,
        (10, 20, 40, 80, 160),
        lambda r, d: finetuning(pretrained_on_digits(), r, "predicted"),
        None,
        takes_weights=False,
    ),
    "Fashion-MNIST": Task(
        "classification",
        True,
        (50, 100, 200, 500, 1000),
        lambda r, d: classification(10, *files(d, "Fashion-MNIST")),
        needs="Fashion-MNIST",
    ),
    "finetuned on Fashion-MNIST": Task(
        "classification",
        True,
        (10, 20, 40, 80, 160),
        lambda r, d: finetuning(pretrained_on_fashion(d), r),
        None,
        needs="Fashion-MNIST",
        takes_weights=False,
    ),
    "breast cancer": Task(
        "classification",
        True,
        (10, 20, 50, 100),
        lambda r, d: classification(1, *table(datasets.load_breast_cancer, r, stratify=True)),
    ),
    "wine": Task(
        "classification",
        True,
        (10, 20, 50),
        lambda r, d: classification(1, *table(datasets.load_wine, r, stratify=True)),
    ),
    "GMM, seed 1": Task(
        "regression", True, (24, 48, 80, 120, 400), lambda r, d: gmm(1), 32, takes_weights=False
    ),
    "quadratic diabetes": Task(
        "regression",
        True,
        (20, 50, 100, 200),
        lambda r, d: regression(*quadratic_diabetes(r)),
    ),
}
