"""The command that runs the paper's experiments, also after it was interrupted."""

import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from tests.paper._data_files import EXPERIMENTS

pytestmark = pytest.mark.slow  # it tests an example, not the package

RUN = Path(__file__).parents[2] / "examples" / "paper" / "run.py"
SECONDS = ["select_seconds", "train_seconds"]


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_experiment_runs(run_experiment, experiment):
    table = run_experiment(experiment)
    assert list(table["method"]) == ["uniform", "skmm"]
    if experiment == "utkface-probe":
        assert table["mae"].between(0, 90).all()
        assert table["accuracy"].isna().all()
    else:
        assert table["accuracy"].between(0, 100).all()
        assert table["macro_f1"].between(0, 100).all()
        assert table["mae"].isna().all()


def test_probe_learns(run_experiment):
    table = run_experiment("cars-probe", "--epochs", 100, n=(18,))
    assert (table["accuracy"] > 80).all()


def test_interrupted_run_continues(paper, run_experiment, monkeypatch, tmp_path):
    work = {"n": (6, 9), "seeds": (0, 1), "methods": ("uniform", "skmm", "entropy")}
    whole = run_experiment("cars-probe", **work, out="whole.csv")
    fit, fits = paper.train.fit, []

    def interrupted(tail, X, y, **kwargs):
        if len(y) < 24:  # the pilot trains on all 24 samples
            fits.append(len(y))
            if len(fits) == 6:
                raise KeyboardInterrupt
        return fit(tail, X, y, **kwargs)

    def never(*args):
        raise AssertionError("features were computed a second time")

    monkeypatch.setattr(paper.train, "fit", interrupted)
    monkeypatch.setattr(paper.models, "_compute", never)
    with pytest.raises(KeyboardInterrupt):
        run_experiment("cars-probe", **work, out="parts.csv")
    assert len(pd.read_csv(tmp_path / "out" / "parts.csv", comment="#")) == 5
    parts = run_experiment("cars-probe", **work, out="parts.csv")
    assert len(fits) == 6 + 12 - 5
    pd.testing.assert_frame_equal(parts.drop(columns=SECONDS), whole.drop(columns=SECONDS))
    # A third run has nothing to do and keeps the times of the finished rows.
    pd.testing.assert_frame_equal(run_experiment("cars-probe", **work, out="parts.csv"), parts)
    assert len(fits) == 13


@pytest.mark.slow
def test_killed_command_continues(run_experiment, weights, tmp_path):
    whole = run_experiment("cars-probe", n=(6, 9, 12), seeds=(0, 1), out="whole.csv")
    out = tmp_path / "elsewhere" / "killed.csv"
    command = [sys.executable, RUN, "cars-probe", "--data", tmp_path / "cars-probe"]
    command += ["--model", weights / "clip", "--out", out, "--device", "cpu", "--m", 12]
    command += ["--n", 6, 9, 12, "--seeds", 0, 1, "--methods", "uniform", "skmm", "--epochs", 3]
    command = [str(part) for part in command]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL) as process:
        while not out.exists() and process.poll() is None:
            time.sleep(0.005)
        process.kill()
    before = pd.read_csv(out, comment="#")
    assert 1 <= len(before) <= len(whole)
    # A second process would import the same libraries for as long again.
    after = run_experiment("cars-probe", n=(6, 9, 12), seeds=(0, 1), out=out)
    pd.testing.assert_frame_equal(after[: len(before)], before, check_dtype=False)
    pd.testing.assert_frame_equal(after.drop(columns=SECONDS), whole.drop(columns=SECONDS))


@pytest.mark.parametrize(
    ("experiment", "options", "message"),
    [
        ("utkface-probe", {"methods": ("entropy",)}, "no classes"),
        ("utkface-probe", {"methods": ("glister",)}, "no classes"),
        ("utkface-probe", {"options": ("--epochs", 3)}, "no --epochs"),
        ("cars-probe", {"n": (25,)}, "only 24 training images"),
    ],
)
def test_impossible_arguments_are_rejected(run_experiment, capsys, experiment, options, message):
    with pytest.raises(SystemExit) as error:
        run_experiment(experiment, *options.pop("options", ()), **options)
    assert message in f"{error.value} {capsys.readouterr().err}"
