"""Measure the peak memory of each selector in addition to X, and compare it with its estimate.

    pip install -c constraints.txt -e '.[benchmark]'
    python examples/benchmarks/memory.py

Peak memory is what NumPy allocates during a fit, as counted by tracemalloc, in units of the size of
X, which has m = 64 columns; n = 256. ``stated`` is the selector's own estimate: if less is
available, it raises MemoryError. ``ratio`` is measured / stated. ``ratio_of_few`` is the ratio for
a tenth of the samples, where memory that does not depend on N matters most. A selector that works
in double precision copies float32 samples, and the copy is included.

Facility location compares all pairs, so it gets fewer samples. To shorten the runs, k-means stops
after three iterations; every iteration needs the same memory.
"""

import argparse
import tracemalloc

import numpy as np
import pandas as pd
from _record import record
from sklearn.linear_model import LogisticRegression

import sklearn_skmm
from sklearn_skmm import SkMMSelector

M, N_PICKS, SIZE, SIZE_OF_ALL_PAIRS = 64, 256, 100_000, 10_000
SELECTORS = ("Uniform", "Herding", "KCenter", "KMeans", "FacilityLocation", "Adaptive")
SELECTORS += ("RidgeLeverage", "TruncatedLeverage", "GradNorm", "Uncertainty", "VOptimal")
ROUNDINGS = ("cells", "exemplar", "systematic", "choice", "spread", "cube", "local_cube")


def selectors():
    """Yield names, selectors and numbers of samples."""
    for name in SELECTORS:
        params = (LogisticRegression(),) if name == "Uncertainty" else ()
        selector = getattr(sklearn_skmm, f"{name}Selector")(N_PICKS, *params)
        if name == "KMeans":
            selector.set_params(max_iter=3)
        size = SIZE_OF_ALL_PAIRS if name == "FacilityLocation" else SIZE
        yield f"{name}Selector", selector, size
    for rounding in ROUNDINGS:
        yield f'SkMMSelector, "{rounding}"', SkMMSelector(N_PICKS, rounding=rounding), SIZE


def samples(N, dtype):
    """Return samples with a decaying spectrum, and two classes."""
    X = np.random.RandomState(0).normal(size=(N, M)) / np.sqrt(np.arange(1, M + 1))
    return X.astype(dtype), X[:, 0] > 0


def peak(selector, N, dtype):
    """Return the peak memory of a fit and the selector's estimate, in units of X."""
    if "random_state" in selector.get_params():
        selector.set_params(random_state=0)
    X, y = samples(N, dtype)
    tracemalloc.start()
    selector.fit(X, y)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most / X.nbytes, selector._bytes_next_to(X) / X.nbytes


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dry", action="store_true", help="print only, record nothing")
    args = parser.parse_args()
    rows = []
    for name, selector, N in selectors():
        selector.fit(*samples(1000, np.float64))  # triggers lazy imports
        for dtype in (np.float64, np.float32):
            copies, stated = peak(selector, N, dtype)
            copies_of_few, stated_of_few = peak(selector, N // 10, dtype)
            rows.append(
                {
                    "selector": name,
                    "dtype": np.dtype(dtype).name,
                    "N": N,
                    "copies_of_X": round(copies, 2),
                    "stated": round(stated, 2),
                    "ratio": round(copies / stated, 2),
                    "ratio_of_few": round(copies_of_few / stated_of_few, 2),
                }
            )
            print(
                "{selector}, {dtype}: {copies_of_X} times X, stated {stated}, ratio {ratio}, "
                "with fewer samples {ratio_of_few}".format(**rows[-1]),
                flush=True,
            )
    if not args.dry:
        print(
            "wrote",
            record(
                pd.DataFrame(rows), "memory", command="python examples/benchmarks/memory.py"
            ).name,
        )


if __name__ == "__main__":
    main()
