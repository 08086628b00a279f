"""Commands that must fail with a message and write no files."""

import numpy as np
import pytest

from sklearn_skmm.cli._main import main
from tests._rejection import N, X, state_of

BAD_COMMANDS = {
    # name: (array in the file, further arguments, exit status, part of the message)
    "more than samples": (X, ["--n", "25"], 1, "n_to_select=25"),
    "no constant": (X, ["--n", "5", "--c-S", "0.01"], 1, "c_S"),
    "constant infinite": (X, ["--n", "5", "--c-S", "inf"], 2, "'inf'"),
    "constant NaN": (X, ["--n", "5", "--c-S", "nan"], 2, "'nan'"),
    "seed too large": (X, ["--n", "5", "--seed", str(2**32)], 2, str(2**32)),
    "n in words": (X, ["--n", "five"], 2, "'five'"),
    "n infinite": (X, ["--n", "inf"], 2, "'inf'"),
    "m in words": (X, ["--n", "5", "--m", "all"], 2, "'all'"),
    "m negative": (X, ["--n", "5", "--m", "-3"], 2, "--m"),
    "selector": (X, ["--n", "5", "--selector", "uncertainty"], 2, "uncertainty"),
    "infinity": (X * np.inf, ["--n", "5"], 1, "X contains"),
    "squares overflow": (X * 1e300, ["--n", "5", "--m", "none"], 1, "largest entry of X"),
    "subnormals": (X * 1e-310, ["--n", "5", "--m", "none"], 1, "largest entry of X"),
    "no rows": (X[:0], ["--n", "5"], 1, "0 sample(s)"),
    "no columns": (X[:, :0], ["--n", "5"], 1, "0 feature(s)"),
    "3-d": (X[None], ["--n", "5"], 1, "2-d"),
    "scalar": (np.float64(3), ["--n", "5"], 1, "2-d"),
    "dates": (np.zeros((N, 2), "M8[s]"), ["--n", "5"], 1, "datetime64"),
    "records": (np.zeros(N, dtype=[("a", float)]), ["--n", "5"], 1, "2-d"),
}


@pytest.mark.parametrize("name", BAD_COMMANDS)
def test_failing_commands_write_no_files(name, tmp_path, monkeypatch, capsys):
    pool, options, status, word = BAD_COMMANDS[name]
    monkeypatch.chdir(tmp_path)
    np.save("pool.npy", pool)
    before = state_of(tmp_path)
    argv = ["select", "pool.npy", *options, "--out", "picks.csv", "--summary", "summary.json"]
    assert main(argv) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert word in err
    assert "Traceback" not in err
    assert state_of(tmp_path) == before
