"""The table of results: atomic rows, and files that are not overwritten."""

import os

import pandas as pd
import pytest

pytestmark = pytest.mark.slow  # it tests an example, not the package


def test_experiments_share_a_table(run_experiment):
    first = run_experiment("cars-probe")
    both = run_experiment("cars-finetune")
    assert list(both["task"]) == ["cars-probe"] * 2 + ["cars-finetune"] * 2
    pd.testing.assert_frame_equal(both[:2][list(first)], first, check_dtype=False)


@pytest.mark.parametrize("option", [("--m", 5), ("--target", "random"), ("--epochs", 4)])
def test_table_rejects_rows_of_other_settings(run_experiment, option):
    run_experiment("cars-probe")
    name = option[0].removeprefix("--")
    with pytest.raises(SystemExit, match=rf"rows of cars-probe with {name}=.*another --out"):
        run_experiment("cars-probe", *option)


def test_table_rejects_rows_of_other_versions(run_experiment, tmp_path):
    run_experiment("cars-probe")
    path = tmp_path / "out" / "a.csv"
    path.write_text(path.read_text().replace("# python 3", "# python 2"))
    with pytest.raises(SystemExit, match="another --out"):
        run_experiment("cars-probe")


def test_unrelated_file_is_not_overwritten(paper, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("# head\ntask,score\nx,1\n")
    with pytest.raises(SystemExit, match="no table of these experiments"):
        paper.results.Table(path, ["# head"])
    assert path.read_text() == "# head\ntask,score\nx,1\n"


def test_row_is_written_whole_or_not_at_all(paper, tmp_path, monkeypatch):
    path = tmp_path / "a.csv"
    table = paper.results.Table(path, ["# head"])
    table.append({"task": "t", "method": "a", "n": 1, "seed": 0, "accuracy": 50.0})
    before = path.read_bytes()

    def fails(*args):
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fails)
        with pytest.raises(OSError, match="no space"):
            table.append({"task": "t", "method": "b", "n": 1, "seed": 0, "accuracy": 50.0})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.csv"]
    again = paper.results.Table(path, ["# head"])
    assert again.finished("t", "a", 1, 0)
    assert not again.finished("t", "b", 1, 0)
