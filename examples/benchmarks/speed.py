"""Compare the time of three selectors with other libraries that do the same work.

    pip install -c constraints.txt -e '.[benchmark]'
    python examples/benchmarks/speed.py --data DIR

All use the same pool. DIR contains ``r52_minilm.npz`` as for ``real.py``. Times of this library are
medians of three runs, or of five for k-means; slow methods of other libraries run once.
"""

import argparse
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from _record import clock, record
from skactiveml.pool import CoreSet, MaxHerding
from sklearn.cluster import KMeans

from sklearn_skmm import FacilityLocationSelector, KCenterSelector, KMeansSelector
from sklearn_skmm.core._costs import median_distance


def agreement(X, ours, theirs):
    """Count positions that are equal, and positions whose rows are equal."""
    same = int(np.sum(ours == theirs))
    rows = int(np.sum((X[ours] == X[theirs]).all(axis=1)))
    return same, rows


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="directory with r52_minilm.npz")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    with np.load(Path(args.data) / "r52_minilm.npz", allow_pickle=False) as data:
        X = data["X_train"].astype(float)
    unlabelled = np.full(len(X), np.nan)
    h = 0.5 * median_distance(X, np.random.RandomState(0))
    herding = MaxHerding(normalize_samples=False, metric_dict={"gamma": 0.5 / h**2}, random_state=0)
    rows = []
    for n in (50, 200):
        ours, seconds = clock(
            lambda n=n: FacilityLocationSelector(n, bandwidth=h).fit_transform(X), 3
        )
        theirs, peer = clock(lambda n=n: herding.query(X, unlabelled, batch_size=n))
        same, equal_rows = agreement(X, ours, theirs)
        rows.append(
            (
                "FacilityLocationSelector",
                "scikit-activeml MaxHerding",
                n,
                seconds,
                peer,
                same,
                equal_rows,
            )
        )
    n = 100
    _, seconds = clock(lambda: KCenterSelector(n, random_state=0).fit_transform(X), 3)
    _, peer = clock(lambda: CoreSet(random_state=0).query(X, unlabelled, batch_size=n), 3)
    rows.append(("KCenterSelector", "scikit-activeml CoreSet", n, seconds, peer, None, None))
    for n in (50, 200):
        _, seconds = clock(lambda n=n: KMeansSelector(n, random_state=0).fit_transform(X), 5)
        # The k-means that KMeansSelector runs, with the same seed and tolerance.
        seed = np.random.RandomState(KMeansSelector(n, random_state=0).fit(X)._seed).randint(
            2**31 - 1
        )
        _, peer = clock(
            lambda n=n, seed=seed: KMeans(n, n_init=1, tol=0, random_state=seed).fit(X), 5
        )
        rows.append(("KMeansSelector", "scikit-learn KMeans alone", n, seconds, peer, None, None))
    columns = ["selector", "peer", "n", "seconds", "peer_seconds", "same_picks", "equal_rows"]
    table = pd.DataFrame(rows, columns=columns)
    table.insert(5, "times_faster", (table["peer_seconds"] / table["seconds"]).round(2))
    for column in ("seconds", "peer_seconds"):
        table[column] = table[column].round(4)
    for column in ("same_picks", "equal_rows"):
        table[column] = table[column].astype("Int64")
    print(table.to_string(index=False))
    packages = ("numpy", "scipy", "scikit-learn", "scikit-activeml")
    command = "python examples/benchmarks/speed.py --data DIR"
    print("wrote", record(table, "speed", command=command, packages=packages).name)


if __name__ == "__main__":
    main()
