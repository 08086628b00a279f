"""Compare all label-free selectors and other libraries on real classification tasks.

Selectors of this library use one Gaussian sketch (m = 96). Other libraries use the features, as
their users would; rows marked "features" are selectors of this library on the features. A logistic
regression is fitted on the features of the coreset. Accuracy and macro-F1 are measured on the test
set and averaged over the seeds.

    pip install -c constraints.txt -e '.[benchmark]'
    python examples/benchmarks/real.py --data DIR

DIR contains ``r52_minilm.npz`` (keys X_train, y_train, X_test, y_test: sentence embeddings of
Reuters R52, for instance ``SentenceTransformer("all-MiniLM-L6-v2").encode(texts)``) and
``fashion-mnist/`` (the four IDX files). Either may be missing; the digits come with scikit-learn.
"""

import argparse
import gzip
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from _methods import paper_skmm
from _record import record
from scipy import stats
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score
from sklearn.model_selection import train_test_split

import sklearn_skmm as s

SIZES = (50, 100, 200, 500, 1000)
PEER_SIZES = (50, 200)  # fewer, because other libraries are slow


def load_idx(path):
    """Read one gzipped IDX file."""
    with gzip.open(path) as file:
        data = file.read()
    shape = [int.from_bytes(data[4 + 4 * i : 8 + 4 * i], "big") for i in range(data[3])]
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(shape)


def tasks(directory):
    """Yield name, X_train, y_train, X_test and y_test, with features of about unit scale."""
    X, y = load_digits(return_X_y=True)
    parts = train_test_split(X / 16, y, test_size=0.5, stratify=y, random_state=0)
    yield "digits", parts[0], parts[2], parts[1], parts[3]
    if directory is None:
        return
    path = Path(directory) / "r52_minilm.npz"
    if path.exists():
        with np.load(path, allow_pickle=False) as d:
            yield (
                "R52",
                *(d[k].astype(float) for k in ("X_train",)),
                d["y_train"],
                d["X_test"].astype(float),
                d["y_test"],
            )
    folder = Path(directory) / "fashion-mnist"
    if folder.exists():
        X, y = (
            load_idx(folder / f"train-{kind}-ubyte.gz") for kind in ("images-idx3", "labels-idx1")
        )
        X_test, y_test = (
            load_idx(folder / f"t10k-{kind}-ubyte.gz") for kind in ("images-idx3", "labels-idx1")
        )
        keep = np.random.RandomState(0).choice(len(X), 10_000, replace=False)
        # Principal components make the linear model fast to fit; 10,000 of the images are the pool.
        pca = PCA(100, random_state=0).fit(X[keep].reshape(len(keep), -1) / 255.0)
        scale = np.sqrt(pca.explained_variance_.sum())
        Z, Z_test = (
            pca.transform(part.reshape(len(part), -1) / 255.0) / scale for part in (X[keep], X_test)
        )
        yield "Fashion-MNIST", Z, y[keep], Z_test, y_test


OURS = {
    "UniformSelector": lambda n, r: s.UniformSelector(n, random_state=r),
    "SkMMSelector": lambda n, r: s.SkMMSelector(n, random_state=r),
    "SkMMSelector, the paper's": paper_skmm,
    "VOptimalSelector": lambda n, r: s.VOptimalSelector(n),
    "KMeansSelector": lambda n, r: s.KMeansSelector(n, random_state=r),
    "FacilityLocationSelector": lambda n, r: s.FacilityLocationSelector(n, random_state=r),
    "KCenterSelector": lambda n, r: s.KCenterSelector(n, random_state=r),
    "AdaptiveSelector": lambda n, r: s.AdaptiveSelector(n, random_state=r),
    "RidgeLeverageSelector": lambda n, r: s.RidgeLeverageSelector(n, random_state=r),
    "TruncatedLeverageSelector": lambda n, r: s.TruncatedLeverageSelector(n, random_state=r),
    "HerdingSelector": lambda n, r: s.HerdingSelector(n),
}
ON_FEATURES = ("SkMMSelector", "KMeansSelector", "FacilityLocationSelector", "KCenterSelector")


def peers(n_classes):
    """Return name -> function (X, n, seed) for the libraries that are installed."""
    found = {}
    try:
        from skactiveml.pool import CoreSet, MaxHerding, ProbCover, TypiClust
    except ImportError:
        print("scikit-activeml is not installed: its rows are left out")
    else:
        from sklearn_skmm.core._costs import median_distance

        def query(strategy):
            return lambda X, n: strategy.query(X, np.full(len(X), np.nan), batch_size=n)

        def max_herding(X, n, seed):
            h = 0.5 * median_distance(X, np.random.RandomState(0))
            strategy = MaxHerding(
                normalize_samples=False, metric_dict={"gamma": 0.5 / h**2}, random_state=seed
            )
            return query(strategy)(X, n)

        found["scikit-activeml MaxHerding"] = max_herding
        found["scikit-activeml TypiClust"] = lambda X, n, r: query(TypiClust(random_state=r))(X, n)
        found["scikit-activeml ProbCover"] = lambda X, n, r: query(
            ProbCover(n_classes=n_classes, random_state=r)
        )(X, n)
        found["scikit-activeml CoreSet"] = lambda X, n, r: query(CoreSet(random_state=r))(X, n)
    try:
        from apricot import FacilityLocationSelection
    except ImportError:
        print("apricot-select is not installed: its row is left out")
    else:
        found["apricot FacilityLocation"] = lambda X, n, r: (
            FacilityLocationSelection(n, random_state=r).fit(X).ranking
        )
    try:
        import torch
        from bmdal_reg.bmdal.algorithms import select_batch
        from bmdal_reg.bmdal.feature_data import TensorFeatureData
    except ImportError:
        print("bmdal-reg is not installed: its rows are left out")
    else:
        np.Inf = np.inf  # noqa: NPY201 (bmdal-reg 3.0.2 predates NumPy 2)

        def bmdal(method, transforms):
            def select(X, n, seed):
                torch.manual_seed(seed)
                pool = TensorFeatureData(torch.from_numpy(X.astype(np.float32)))
                # The methods need a labelled set: one random sample, which is part of the coreset.
                first = int(np.random.RandomState(seed).randint(len(X)))
                start = TensorFeatureData(torch.from_numpy(X[[first]].astype(np.float32)))
                picks, _ = select_batch(
                    batch_size=n - 1,
                    models=[torch.nn.Identity()],  # one feature map per model
                    data={"train": start, "pool": pool},
                    y_train=None,
                    base_kernel="linear",
                    kernel_transforms=transforms,
                    selection_method=method,
                )
                return np.append(first, picks.numpy())

            return select

        found["bmdal-reg LCMD"] = bmdal("lcmd", [])
        found["bmdal-reg BAIT"] = bmdal("bait", [("train", [1e-1, None])])
    return found


def measure(indices, seconds, data, row):
    """Fit on the coreset and return the complete row."""
    X, y, X_test, y_test = data
    indices = np.unique(np.asarray(indices).ravel())
    labels = y[indices]
    if len(np.unique(labels)) == 1:
        predicted = np.full(len(y_test), labels[0])
    else:
        predicted = LogisticRegression(C=10, max_iter=300).fit(X[indices], labels).predict(X_test)
    return {
        **row,
        "accuracy": accuracy_score(y_test, predicted),
        "macro_f1": f1_score(y_test, predicted, average="macro", zero_division=0),
        "seconds": seconds,
    }


def run(name, X, y, X_test, y_test, seeds):
    """Yield a row for each method, n and seed."""
    data = (X, y, X_test, y_test)
    slow = peers(len(np.unique(y)))
    for seed in range(seeds):
        sketch = s.GradientSketcher(m=96, random_state=seed).fit_transform(X)
        methods = {
            key: lambda n, build=build: build(n, seed).fit_transform(sketch)  # noqa: B023
            for key, build in OURS.items()
        }
        for key in ON_FEATURES:
            methods[f"{key}, features"] = lambda n, build=OURS[key]: build(n, seed).fit_transform(X)  # noqa: B023
        for key, select in slow.items():
            methods[key] = lambda n, select=select: select(X, n, seed)  # noqa: B023
        for key, select in methods.items():
            is_peer = key in slow
            if is_peer and seed:  # slow, and mostly deterministic
                continue
            for n in PEER_SIZES if is_peer else SIZES:
                if n > len(X) // 2:
                    continue
                row = {"task": name, "method": key, "n": n, "seed": seed}
                start = time.perf_counter()
                try:
                    indices = select(n)
                except Exception as error:  # report the failure and leave the row out
                    if not is_peer:
                        raise
                    print(f"{key} failed on {name}, n={n}: {type(error).__name__}: {error}")
                    continue
                yield measure(indices, time.perf_counter() - start, data, row)


def summary(results):
    """Return means per task, method and n, with the paired difference to random sampling."""
    uniform = results[results["method"] == "UniformSelector"].set_index(["task", "n", "seed"])
    rows = []
    for (task, method, n), group in results.groupby(["task", "method", "n"], sort=False):
        paired = group.set_index(["task", "n", "seed"])["accuracy"]
        difference = 100 * (paired - uniform["accuracy"].reindex(paired.index))
        half = difference.sem() * stats.t.ppf(0.975, max(1, len(difference) - 1))
        rows.append(
            {
                "task": task,
                "method": method,
                "n": n,
                "seeds": len(group),
                "accuracy": round(100 * group["accuracy"].mean(), 2),
                "macro_f1": round(100 * group["macro_f1"].mean(), 2),
                "minus_uniform": round(difference.mean(), 2),
                "half_width_95": round(half, 2),
                "seconds": float(f"{group['seconds'].median():.3g}"),
            }
        )
    return pd.DataFrame(rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", help="directory with r52_minilm.npz and fashion-mnist/")
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    packages = (
        "numpy",
        "scipy",
        "scikit-learn",
        "scikit-activeml",
        "apricot-select",
        "bmdal-reg",
        "torch",
    )
    command = "python examples/benchmarks/real.py --data DIR"
    rows = []
    for name, *data in tasks(args.data):
        rows.extend(run(name, *data, args.seeds))
        # Written after each task, so that an interrupted run keeps its finished tasks.
        table = summary(pd.DataFrame(rows))
        print("wrote", record(table, "real", command=command, packages=packages).name, name)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
