"""What each selector holds at its peak next to X, and what it says it does.

    pip install -c constraints.txt -e '.[benchmark]'
    python examples/benchmarks/memory.py

The peak of what NumPy allocates in a fit, as tracemalloc counts it, at two sizes; the growth from
one to the other in units of the growth of X, so that what is held whatever N is cancels out (it is
in the last column). ``stated`` is what the selector refuses by, where there is less. A selector
that works in double precision makes a copy of float32 samples, which counts.
"""

import argparse
import tracemalloc

import numpy as np
import pandas as pd
from _record import record

import sklearn_skmm
from sklearn_skmm import SkMMSelector

M, N_PICKS, SIZES = 64, 20, (150_000, 300_000)
SELECTORS = ("Uniform", "Herding", "KCenter", "KMeans", "Adaptive", "RidgeLeverage")
SELECTORS += ("TruncatedLeverage", "GradNorm", "VOptimal")
ROUNDINGS = ("cells", "exemplar", "systematic", "spread", "cube", "local_cube")


def selectors():
    """Yield names and selectors; facility location's peak is what it keeps whatever N is."""
    for name in SELECTORS:
        selector = getattr(sklearn_skmm, f"{name}Selector")(N_PICKS)
        if name == "KMeans":
            selector.set_params(max_iter=3, n_init=1)
        yield f"{name}Selector", selector
    for rounding in ROUNDINGS:
        yield f'SkMMSelector, "{rounding}"', SkMMSelector(N_PICKS, rounding=rounding)


def peak(selector, X):
    """Return the most bytes that were allocated at once during fit."""
    if "random_state" in selector.get_params():
        selector.set_params(random_state=0)
    tracemalloc.start()
    selector.fit(X)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dry", action="store_true", help="print only, record nothing")
    args = parser.parse_args()
    rows = []
    for name, selector in selectors():
        for dtype in (np.float64, np.float32):
            peaks = []
            for N in SIZES:
                rng = np.random.RandomState(0)
                X = (rng.normal(size=(N, M)) / np.sqrt(np.arange(1, M + 1))).astype(dtype)
                peaks.append(peak(selector, X))
            row = X.itemsize * M
            growth = (peaks[1] - peaks[0]) / ((SIZES[1] - SIZES[0]) * row)
            rows.append(
                {
                    "selector": name,
                    "dtype": np.dtype(dtype).name,
                    "copies_of_X": round(growth, 2),
                    "stated": round(selector._bytes_next_to(X) / X.nbytes, 2),
                    "MiB_whatever_N": round((peaks[1] - growth * SIZES[1] * row) / 2**20, 1),
                }
            )
            print("{selector}, {dtype}: {copies_of_X} of X, stated {stated}".format(**rows[-1]))
    if not args.dry:
        print(
            "wrote",
            record(
                pd.DataFrame(rows), "memory", command="python examples/benchmarks/memory.py"
            ).name,
        )


if __name__ == "__main__":
    main()
