"""Inject faults at random moments and places, and check that a retry gives the same result.

    python -m tests.faults                            # all of them, about ten minutes
    python -m tests.faults kills --runs 200 --seed 1  # some

`tests/test_faults.py` has a few of each kind.
"""

import argparse
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import warnings
from contextlib import contextmanager, redirect_stderr
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import Ridge
from torch import nn

from sklearn_skmm import CoresetEstimator, GradientSketcher, UniformSelector
from sklearn_skmm.cli._main import main as command
from sklearn_skmm.sketch._torch import _cached_sketch
from tests._selectors import make, selector_classes

ROWS = 10  # samples in a block of the cache
PACKAGE = f"{os.sep}sklearn_skmm{os.sep}"
SWAPS = os.path.join("torch", "nn", "utils")


class Model(nn.Module):
    """Layers with hooks, one without, buffers, dropout, tied weights."""

    def __init__(self, width=7):
        super().__init__()
        self.first = nn.Linear(5, width)
        self.norm = nn.BatchNorm1d(width)
        self.drop = nn.Dropout()
        self.scale = nn.Parameter(torch.ones(width))
        self.second, self.third = nn.Linear(width, width), nn.Linear(width, width)
        self.third.weight = self.second.weight
        self.last = nn.Linear(width, 3)

    def forward(self, x):
        x = self.drop(self.norm(torch.tanh(self.first(x))) * self.scale)
        return self.last(torch.tanh(self.third(torch.tanh(self.second(x)))))


def model(width=7):
    torch.manual_seed(0)
    return Model(width).train()


def pool(n_rows):
    return np.random.RandomState(0).normal(size=(n_rows, 5)).astype(np.float32)


def sketcher(directory, width=7):
    params = {"target": "sampled", "batch_size": 5, "random_state": 0}
    return GradientSketcher(4, model=model(width), cache_dir=directory, **params)


def sketch(directory, n_rows=100, width=7):
    _cached_sketch.CACHED_ROWS = ROWS
    return sketcher(directory, width).fit_transform(pool(n_rows))


def content(directory, pattern="[!t]*"):
    """Return the bytes of a cache's files, except of those with a temporary name."""
    return {path.name: path.read_bytes() for path in Path(directory).glob(pattern)}


def start(action, *args):
    """Call in a fork, and return its process id.

    The exit code is the integer that the call returns, 0 for another value, or 99 after an error.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # while Python sets up the child
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        return pid
    code = 99
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        code = action(*args)
        code = code if isinstance(code, int) else 0
    except KeyboardInterrupt:
        code = 130
    except BaseException as error:
        print(repr(error), file=sys.stderr)
    finally:
        os._exit(code)


def code_of(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def duration(action, *args):
    began = time.perf_counter()
    assert code_of(start(action, *args)) == 0
    return time.perf_counter() - began


# Processes that are killed


def kills(folder, runs, rng):
    """Kill a run, half of the time beside another one that continues; a later run completes it."""
    expected, files = sketch(folder / "whole"), content(folder / "whole")
    longest = duration(sketch, folder / "timed")
    stages = set()
    for _ in range(runs):
        directory = folder / "killed"
        shutil.rmtree(directory, ignore_errors=True)
        n_others = rng.integers(2)
        pids = [start(sketch, directory) for _ in range(1 + n_others)]
        # Wait for a random block, so that the moment does not depend on the speed of the machine.
        first, began = rng.integers(len(files)), time.monotonic()
        while len(list(directory.glob("block-*"))) < first:
            assert time.monotonic() < began + 60
            time.sleep(0.001)
        time.sleep(rng.uniform(0, longest / len(files)))
        os.kill(pids[0], signal.SIGKILL)
        code_of(pids[0])
        stages.add(len(content(directory)))
        assert sketch(directory).tobytes() == expected.tobytes()
        assert [code_of(pid) for pid in pids[1:]] == [0] * n_others
        assert content(directory) == files
        assert len(list(directory.glob("tmp-*"))) <= 1
    return f"{runs} processes killed, at {len(stages)} numbers of finished files"


def targets(folder, name="picks.csv", n_rows=60):
    """Return the arguments of the command and the files that it writes."""
    folder.mkdir(exist_ok=True)
    np.save(folder / "pool.npy", pool(n_rows))
    files = [folder / name, folder / "summary.json"]
    argv = ["select", str(folder / "pool.npy"), "--n", "5", "--quiet"]
    return [*argv, "--out", str(files[0]), "--summary", str(files[1])], files


def clean(files):
    for path in files[0].parent.glob("*"):
        if path.name != "pool.npy":
            path.unlink()


def check_files(files, whole, old, temporaries=0):
    """Check that each file is the old one or the complete new one, and that no others exist."""
    for path in files:
        found = path.read_bytes() if path.exists() else None
        assert found in (old, whole[path]), (path, found)
    names = {path.name for path in files[0].parent.glob("*")} - {path.name for path in files}
    others = [name for name in names if name != "pool.npy"]
    assert len(others) <= temporaries, others
    assert all(name.startswith(".sklearn-skmm-") for name in others)


def commands(folder, runs, rng):
    """Kill the command line, or send it Ctrl-C, before, during or after writing."""
    argv, files = targets(folder / "command")
    longest = max(duration(command, [*argv, "--force"]) for _ in range(3))
    whole = {path: path.read_bytes() for path in files}
    codes = []
    for _ in range(runs):
        clean(files)
        old = b"old" if rng.integers(2) else None
        if old:
            for path in files:
                path.write_bytes(old)
        number = [signal.SIGKILL, signal.SIGINT][rng.integers(2)]
        pid = start(command, [*argv, *(["--force"] if old else [])])
        time.sleep(rng.uniform(0, 1.1 * longest))
        os.kill(pid, number)
        codes.append(code_of(pid))
        assert codes[-1] in (0, 130, -signal.SIGKILL)
        check_files(files, whole, old, 2 * (number == signal.SIGKILL))
        assert code_of(start(command, [*argv, "--force"])) == 0
        assert {path: path.read_bytes() for path in files} == whole
    return f"{runs} commands, {codes.count(130)} stopped and {codes.count(-9)} killed in time"


# Files that are damaged


def flips(folder, runs, rng):
    """Flip bits of a cache, or cut off the end of a file."""
    directory = folder / "flipped"
    expected = sketch(directory, 40)
    whole = content(directory)
    refused = computed = 0
    for _ in range(runs):
        name = sorted(whole)[rng.integers(len(whole))]
        data = bytearray(whole[name])
        if rng.integers(3):
            for bit in rng.integers(8 * len(data), size=rng.integers(1, 4)):
                data[bit // 8] ^= 1 << bit % 8
        else:
            del data[rng.integers(len(data)) :]
        (directory / name).write_bytes(data)
        damaged = bytes(data) != whole[name]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                found = sketch(directory, 40)
            except ValueError as error:
                assert name == "manifest.json"
                assert f"cache_dir={str(directory)!r}" in str(error)  # noqa: PT017
                assert content(directory) == whole | {name: bytes(data)}
                refused += 1
                (directory / name).write_bytes(whole[name])
                continue
        assert found.tobytes() == expected.tobytes()
        if name != "manifest.json":
            assert [f"{name} is damaged" in str(w.message) for w in caught] == [True] * damaged
            assert content(directory) == whole  # it was computed again
            computed += damaged
        (directory / name).write_bytes(whole[name])
    return f"{runs} damaged files, {refused} manifests refused, {computed} blocks computed again"


# Resources that run out


def limited(kind, amount, action, *args):
    """Call under a limit, and return 3 if an error reports the limit."""
    resource.setrlimit(kind, (amount, amount))
    try:
        return action(*args)
    except OSError as error:
        return 3 if "cache_dir=" in str(error) and "File too large" in str(error) else repr(error)
    except (MemoryError, RuntimeError) as error:
        return 3 if "allocate" in str(error) or type(error) is MemoryError else repr(error)


def limited_exit_code(*args):
    result = limited(*args)
    if isinstance(result, str):
        print(result, file=sys.stderr)
        return 98
    return result if isinstance(result, int) else 0


def quotas(folder, runs, rng):
    """Limit the size of a file, in the cache and in the output of the command line."""
    n_rows, whole = 40, folder / "whole quota"
    expected, files = sketch(whole, n_rows), content(whole)
    argv, outputs = targets(folder / "command quota")
    assert command(argv) == 0
    written = {path: path.read_bytes() for path in outputs}
    sizes = [len(data) for data in (*files.values(), *written.values())]
    codes = []
    for _ in range(runs):
        directory = folder / "quota"
        shutil.rmtree(directory, ignore_errors=True)
        amount = int(rng.integers(max(sizes) + 10))
        codes.append(
            code_of(
                start(limited_exit_code, resource.RLIMIT_FSIZE, amount, sketch, directory, n_rows)
            )
        )
        assert codes[-1] == (0 if amount >= max(map(len, files.values())) else 3)
        assert content(directory).items() <= files.items()
        assert not list(directory.glob("tmp-*"))
        assert sketch(directory, n_rows).tobytes() == expected.tobytes()
        assert content(directory) == files

        clean(outputs)
        pid = start(limited, resource.RLIMIT_FSIZE, amount, silent, argv)
        fits = amount >= max(map(len, written.values()))
        assert code_of(pid) == (0 if fits else 1)
        assert all(path.exists() == fits for path in outputs)
        check_files(outputs, written, None)
    return f"{runs} limits, {codes.count(3)} below what the cache needs"


def silent(argv):
    """Call the command without its message."""
    with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere):
        return command(argv)


def shortages(folder, runs, rng):
    """Limit the memory."""
    n_rows, width = 20, 3000  # weights too large for memory that the process keeps for reuse
    expected = sketch(folder / "whole shortage", n_rows, width)
    codes = []
    for _ in range(runs):
        directory = folder / "shortage"
        shutil.rmtree(directory, ignore_errors=True)
        with open("/proc/self/statm") as file:
            now = int(file.read().split()[0]) * resource.getpagesize()
        amount = now + int(rng.integers(120)) * 2**20
        args = (resource.RLIMIT_AS, amount, sketch, directory, n_rows, width)
        codes.append(code_of(start(limited_exit_code, *args)))
        assert codes[-1] in (0, 3)
        assert sketch(directory, n_rows, width).tobytes() == expected.tobytes()
    return f"{runs} limits of memory, {codes.count(3)} of them errors"


# Ctrl-C


@contextmanager
def interrupted(at=0):
    """Raise KeyboardInterrupt before a line, of the package or of torch's swaps of parameters.

    ``at`` counts executed lines. Yields the list of these lines so far, each with its file.
    """
    seen = []

    def in_function(frame, event, arg):
        if event == "line":
            seen.append(f"{frame.f_code.co_filename}:{frame.f_lineno}")
            if len(seen) == at:
                raise KeyboardInterrupt
        return in_function

    def at_call(frame, event, arg):
        name = frame.f_code.co_filename
        return in_function if PACKAGE in name or SWAPS in name else None

    before = sys.gettrace()
    sys.settrace(at_call)
    try:
        yield seen
    finally:
        sys.settrace(before)


def positions(action, runs, rng):
    """Yield random positions among the executed lines of an action, each with its line."""
    with interrupted() as seen:
        action()
    # Half of the positions are uniform over executions, half over lines however often executed.
    firsts = sorted({line: k for k, line in reversed([*enumerate(seen, 1)])}.values())
    for k in range(runs):
        at = rng.choice(firsts) if k % 2 else rng.integers(1, len(seen) + 1)
        yield int(at), seen[at - 1]


def is_interrupted(action, at):
    """Return whether the call raises KeyboardInterrupt."""
    try:
        with interrupted(at):
            action()
    except KeyboardInterrupt:
        return True
    return False


def state(estimator):
    return {
        name: value
        for name, value in vars(estimator).items()
        if "callback" not in name  # of scikit-learn
    }


def same(a, b):
    return a.keys() == b.keys() and all(a[name] is b[name] for name in a)


def model_state(module):
    """Return everything that must be restored in a model."""
    return [
        (
            list(m._parameters.items()),
            list(m._buffers.items()),
            dict(m._forward_hooks),
            m.training,
            [None if p is None else p.grad for p in m._parameters.values()],
        )
        for m in module.modules()
    ]


def interrupts_of_sketches(folder, runs, rng):
    """Press Ctrl-C in a sketch; the model, the sketcher and the cache stay as they were."""
    _cached_sketch.CACHED_ROWS = ROWS
    X, directory = pool(20), folder / "interrupted"
    whole = sketcher(folder / "whole interrupt").fit_transform(X)
    files = content(folder / "whole interrupt")
    count = 0

    def fresh():
        shutil.rmtree(directory, ignore_errors=True)
        return sketcher(directory)

    for at, line in positions(lambda: fresh().fit_transform(X), runs, rng):
        run = fresh()
        before, model_before = state(run), model_state(run.model)
        count += is_interrupted(lambda run=run: run.fit_transform(X), at)
        assert model_state(run.model) == model_before, (line, at)
        assert same(state(run), before) or "projection_" in vars(run), line
        assert content(directory).items() <= files.items(), line
        assert run.fit_transform(X).tobytes() == whole.tobytes(), line
        assert content(directory) == files, line
    return f"{count} of {runs} sketches interrupted"


def interrupts_of_selectors(folder, runs, rng):
    """Press Ctrl-C in a fit; the estimator keeps its old fit or has all of the new one."""
    X = np.random.RandomState(0).normal(size=(60, 4))
    y = np.arange(60) % 3
    estimators = [make(cls, 6) for cls in selector_classes()]
    estimators.append(CoresetEstimator(Ridge(), UniformSelector(6, random_state=0)))
    count = total = 0
    for estimator in estimators:
        expected = estimator.fit(X, y).sample_indices_
        other = estimator.fit(X[::-1], y).sample_indices_
        for at, line in positions(lambda e=estimator: e.fit(X, y), runs, rng):
            estimator.fit(X[::-1], y)
            before = state(estimator)
            count += is_interrupted(lambda e=estimator: e.fit(X, y), at)
            total += 1
            if not same(state(estimator), before):
                np.testing.assert_array_equal(estimator.sample_indices_, expected, err_msg=line)
                assert state(estimator).keys() == before.keys(), line
            else:
                np.testing.assert_array_equal(estimator.sample_indices_, other, err_msg=line)
            np.testing.assert_array_equal(estimator.fit(X, y).sample_indices_, expected)
    return f"{count} of {total} fits interrupted, of {len(estimators)} estimators"


def interrupts_of_commands(folder, runs, rng):
    """Press Ctrl-C at a line of the command line; no file is partly written."""
    argv, files = targets(folder / "command interrupt")
    assert command(argv) == 0
    whole = {path: path.read_bytes() for path in files}
    count = 0

    def run(old):
        clean(files)
        if old:
            for path in files:
                path.write_bytes(old)
        return command([*argv, *(["--force"] if old else [])])

    for at, line in positions(lambda: run(None), runs, rng):
        old = b"old" if rng.integers(2) else None
        with interrupted(at):
            try:
                code = run(old)
            except KeyboardInterrupt:  # before or after `main` handles it
                code = 130
        count += code == 130
        assert code in (0, 130), line
        check_files(files, whole, old)
    return f"{count} of {runs} commands interrupted"


RUNS = {
    kills: 200,
    commands: 200,
    flips: 2000,
    quotas: 200,
    shortages: 100,
    interrupts_of_sketches: 1000,
    interrupts_of_selectors: 200,
    interrupts_of_commands: 500,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = {function.__name__: function for function in RUNS}
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument("--runs", type=int)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for name in args.names or names:
        began = time.perf_counter()
        runs = args.runs or RUNS[names[name]]
        with tempfile.TemporaryDirectory() as folder:
            summary = names[name](Path(folder), runs, np.random.default_rng(args.seed))
        print(f"{name}: {summary}, {time.perf_counter() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
