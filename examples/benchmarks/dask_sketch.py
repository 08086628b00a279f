"""Time sketching with Dask, with one worker process and with two.

    pip install -c constraints.txt -e '.[benchmark]'
    python examples/benchmarks/dask_sketch.py

The gradients of a multilayer perceptron are sketched from a Dask array of samples, on a local
cluster of processes with one thread each. The cluster has started and sketched once before the
timing begins. The variants alternate, and the table has the medians. For comparison, the same run
computes the sketch without Dask on one thread.
"""

import argparse

import dask.array as da
import numpy as np
import pandas as pd
import torch
from _record import clock, record
from distributed import Client, LocalCluster
from torch import nn

from sklearn_skmm import GradientSketcher

FEATURES, HIDDEN, CLASSES, M = 512, 1024, 100, 64


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=48_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--dry", action="store_true", help="print only, record nothing")
    args = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = nn.Sequential(
        nn.Linear(FEATURES, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(),
        nn.Linear(HIDDEN, CLASSES),
    )  # fmt: skip
    X = np.random.RandomState(0).normal(size=(args.samples, FEATURES)).astype(np.float32)
    sketcher = GradientSketcher(M, model=model, random_state=0).fit(X[:100])
    seconds = {"without Dask": [], 1: [], 2: []}
    for _ in range(args.repeats):
        plain, taken = clock(lambda: sketcher.transform(X))
        seconds["without Dask"].append(taken)
        for workers in (1, 2):
            with (
                LocalCluster(
                    n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=":0"
                ) as cluster,
                Client(cluster) as client,
            ):
                client.run(torch.set_num_threads, 1)
                lazy = client.persist(da.from_array(X, chunks=(args.samples // 24, FEATURES)))
                warm = sketcher.transform(lazy[: args.samples // 12])
                client.persist(warm).compute()
                rows, taken = clock(lambda lazy=lazy: sketcher.transform(lazy).compute())
                np.testing.assert_allclose(rows, plain, rtol=1e-4, atol=1e-4 * abs(plain).max())
                seconds[workers].append(taken)
    table = pd.DataFrame(
        {
            "worker_processes": list(map(str, seconds)),
            "seconds": [np.median(taken) for taken in seconds.values()],
            "slowest": [max(taken) for taken in seconds.values()],
        }
    )
    table["times_one_process"] = (table["seconds"][1] / table["seconds"]).round(2)
    table[["seconds", "slowest"]] = table[["seconds", "slowest"]].round(3)
    print(table.to_string(index=False))
    if not args.dry:
        command = "python examples/benchmarks/dask_sketch.py"
        packages = ("torch", "dask", "distributed")
        print("wrote", record(table, "dask_sketch", command=command, packages=packages).name)


if __name__ == "__main__":
    main()
