"""Random small models, whose sketch must not depend on the size of the batches.

    python -m tests.random_models --models 2000 --record

Each model has a block of some kind that may move rows between the samples of a batch, among
others (`tests.sketch._torch._random_models`). For several batch sizes its sketch is compared with
one sample at a time, and with a loop of autograd. Model i of a seed is always the same:
``--seed 0 --only 123`` runs one again, with its traceback.
"""

import argparse
import sys
import time
import traceback
import warnings
from collections import defaultdict
from pathlib import Path

import pandas as pd
import torch

from tests.sketch._torch._random_models import MAY_MIX, check_problem, draw_problem

COLUMNS = ["models", "refused", "fast way", "exact way", "wrong rows"]


def run_model(seed, i):
    """Return the problem, its outcome, and the error if there is one."""
    problem = draw_problem(seed, i)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            outcome = check_problem(problem)
        except Exception as error:
            return problem, None, error
    error = None
    if outcome.wrong:
        error = AssertionError(f"{outcome.wrong} rows are wrong by up to {outcome.error:.1e}")
    elif outcome.refused and problem.kind not in MAY_MIX:
        error = AssertionError("refused")
    return problem, outcome, error


def run(seed, start, stop, report=print):
    """Run models start to stop, and return their table and a line for each failure."""
    table, failures, begun = defaultdict(lambda: [0] * len(COLUMNS)), [], time.perf_counter()
    for i in range(start, stop):
        problem, outcome, error = run_model(seed, i)
        row = table[problem.kind]
        row[0] += 1
        if outcome is not None:
            # A model that is refused has no sketch.
            row[1] += outcome.refused
            row[2] += outcome.fast and not outcome.refused
            row[3] += not outcome.fast and not outcome.refused
            row[4] += outcome.wrong
        if error is not None:
            text = " ".join(str(error).split())[:300]
            description = f"{problem.description}: {type(error).__name__}: {text}"
            failures.append(f"--seed {seed} --only {i}  {description}")
            report(failures[-1])
        done, count = i - start + 1, stop - start
        if done * 20 // count > (done - 1) * 20 // count:
            seconds = time.perf_counter() - begun
            report(f"{done * 100 // count} % in {seconds:.0f} s, {len(failures)} failures")
    rows = [[kind, *row] for kind, row in table.items()]
    return pd.DataFrame(rows, columns=["kind", *COLUMNS]), failures


def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="python -m tests.random_models", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--models", type=int, default=2000)
    parser.add_argument("--start", type=int, default=0, help="the first model")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="run this model alone, and show what it raises")
    parser.add_argument("--record", action="store_true", help="write results/random_models.csv")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    if options.only is not None:
        problem, outcome, error = run_model(options.seed, options.only)
        print(problem.kind, problem.description, outcome, sep=": ")
        if error is not None:
            traceback.print_exception(error)
        return int(error is not None)
    stop = options.start + options.models
    table, failures = run(
        options.seed, options.start, stop, report=lambda line: print(line, flush=True)
    )
    table.loc[len(table)] = ["all", *table[COLUMNS].sum()]
    print(table.to_string(index=False))
    if options.record:
        benchmarks = Path(__file__).parents[1] / "examples" / "benchmarks"
        sys.path.append(str(benchmarks))
        from _record import record

        command = f"python -m tests.random_models --models {options.models} --seed {options.seed}"
        packages = ("numpy", "scipy", "scikit-learn", "torch")
        print(record(table, "random_models", command=f"{command} --record", packages=packages).name)
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
