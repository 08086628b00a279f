"""Find the largest N for which each selector, here and in other libraries, stays within limits.

    pip install -c constraints.txt -e '.[benchmark]'
    python examples/benchmarks/scale_all.py

The samples are those of `scale.py`, and n is a hundredth of N. Each row runs in its own process,
with at most 16 GiB of address space. A method that exceeds the time or memory limit at one size is
not run at larger ones; the table says which limit it was. Other libraries have a longer time limit.
With ``--methods``, the recorded rows of the other methods are kept. apricot and scikit-activeml run
their facility location with the Gaussian kernel, which apricot gets as a matrix of similarities.
MiniBatchKMeans gets n clusters, and the samples nearest to the centres are selected.
"""

import json
import resource
import subprocess
import sys
import time
import warnings

import numpy as np
import pandas as pd
from _record import RESULTS, record
from scale import M, mixture, options, quality
from scale import select as select_of_scale
from sklearn.metrics.pairwise import euclidean_distances

import sklearn_skmm
from sklearn_skmm import SkMMSelector

SIZES = (10_000, 30_000, 100_000, 1_000_000)
GIBIBYTES = 16
OURS = ("Uniform", "Herding", "KCenter", "Adaptive", "RidgeLeverage", "TruncatedLeverage")
OURS += ("GradNorm", "VOptimal", "KMeans", "FacilityLocation")
ROUNDINGS = ("cells", "exemplar", "systematic", "spread", "cube", "local_cube")
PEERS = ("scikit-learn MiniBatchKMeans", "apricot FacilityLocation", "scikit-activeml MaxHerding")
METHODS = (*(f'SkMM, "{r}"' for r in ROUNDINGS), *(f"{name}Selector" for name in OURS), *PEERS)


def bandwidth(X):
    """Return half the median distance, the default of FacilityLocationSelector."""
    rows = X[np.random.RandomState(0).choice(len(X), 1000, replace=False)]
    return 0.5 * float(np.median(euclidean_distances(rows)[np.triu_indices(1000, 1)]))


def select(method, X, n):
    """Return the positions of the selected samples."""
    if method.startswith("SkMM"):
        rounding = method.split('"')[1]
        return SkMMSelector(n, rounding=rounding, random_state=0).fit_transform(X)
    if method not in PEERS:
        selector = getattr(sklearn_skmm, method)(n)
        if "random_state" in selector.get_params():
            selector.set_params(random_state=0)
        return selector.fit_transform(X)
    if method == "scikit-learn MiniBatchKMeans":
        return select_of_scale("mini-batch k-means", X, n)
    gamma = 0.5 / bandwidth(X) ** 2
    if method == "apricot FacilityLocation":
        from apricot import FacilityLocationSelection

        kernel = euclidean_distances(X, squared=True)
        kernel *= -gamma
        np.exp(kernel, out=kernel)
        return FacilityLocationSelection(n, metric="precomputed").fit(kernel).ranking
    from skactiveml.pool import MaxHerding

    query = MaxHerding(normalize_samples=False, metric_dict={"gamma": gamma}, random_state=0)
    return query.query(X=X, y=np.full(len(X), np.nan), batch_size=n)


def measure(N, method):
    """Return one row of the table."""
    gib = GIBIBYTES * 2**30
    resource.setrlimit(resource.RLIMIT_AS, (gib, gib))
    X, n = mixture(N), N // 100
    row = {"method": method, "N": N, "n": n}
    start = time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            picks = np.unique(select(method, X, n))
    except MemoryError:
        return {**row, "ended_by": "memory"}
    row["seconds"] = round(time.perf_counter() - start, 3)
    row["peak_MiB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    coverage, v_optimality = quality(X, picks)
    return {**row, "coverage": round(coverage, 4), "v_optimality": round(v_optimality, 2)}


def in_a_process(N, method, limit):
    """Measure in a new process and return the row, which says if a limit was exceeded."""
    command = [sys.executable, __file__, "--child", str(N), method]
    over = {"method": method, "N": N, "n": N // 100, "ended_by": "time"}
    try:
        # The child also makes the samples and measures the quality.
        done = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, check=True, timeout=limit + 10 + N / 1e5
        )
    except subprocess.TimeoutExpired:
        return over
    except subprocess.CalledProcessError as error:
        return {**over, "ended_by": f"exit code {error.returncode}"}
    row = json.loads(done.stdout.splitlines()[-1])
    return over if row.get("seconds", 0) > limit else row


def main():
    parser = options(__doc__, METHODS, largest=1e6)
    parser.add_argument("--limit", type=float, default=30, help="seconds for one selection")
    parser.add_argument(
        "--peer-limit", type=float, default=300, help="the same for other libraries"
    )
    args = parser.parse_args()
    if args.child:
        print(json.dumps(measure(int(args.child[0]), args.child[1])))
        return
    rows = []
    for method in args.methods:
        for N in SIZES:
            if args.max < N:
                break
            limit = args.peer_limit if method in PEERS else args.limit
            rows.append(in_a_process(N, method, limit))
            print(json.dumps(rows[-1]), flush=True)
            if rows[-1].get("ended_by"):
                break
    columns = ["method", "N", "n", "seconds", "peak_MiB", "coverage", "v_optimality", "ended_by"]
    table = pd.DataFrame(rows, columns=columns)
    if set(args.methods) != set(METHODS):
        recorded = pd.read_csv(RESULTS / "scale_all.csv", comment="#")
        table = pd.concat([recorded[~recorded["method"].isin(args.methods)], table])
        table = table.sort_values(
            "method", key=lambda names: names.map(METHODS.index), kind="stable"
        )
    table["peak_MiB"] = table["peak_MiB"].astype("Int64")
    if not args.dry:
        limits = f"--limit {args.limit:g} --peer-limit {args.peer_limit:g}"
        command = f"python examples/benchmarks/scale_all.py {limits}"
        packages = ("numpy", "scikit-learn", "apricot-select", "scikit-activeml")
        name = record(table, "scale_all", command=command, packages=packages).name
        print("wrote", name, f"(m = {M})")


if __name__ == "__main__":
    main()
