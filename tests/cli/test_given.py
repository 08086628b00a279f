"""Weights, samples that are selected already, and the outputs rank and clusters."""

import io
import json
import re
from pathlib import Path

import numpy as np
import pytest

from sklearn_skmm import SkMMSelector, diagnostics
from sklearn_skmm.cli._main import IN_ORDER, SELECTORS, main
from tests.cli.test_main import check_error, in_folder, read_selection  # noqa: F401

N = 120
X = np.random.RandomState(0).normal(size=(N, 6)) * [5, 3, 1, 1, 0.1, 0.1]
GIVEN = np.array([4, 0, 77, 31])
W = np.random.RandomState(1).gamma(1.0, size=N) * (np.arange(N) % 7 > 0)


def selected(capsys, *argv):
    assert main(["select", "pool.npy", "--n", "9", "--quiet", *argv]) == 0
    return read_selection(capsys.readouterr().out)[0].tolist()


def as_npy(values):
    np.save("given.npy", values)
    return "given.npy"


def as_text(text, name="given.csv"):
    Path(name).write_text(text)
    return name


def as_parquet(**columns):
    pytest.importorskip("pyarrow")
    import pandas as pd

    pd.DataFrame(columns).to_parquet("given.parquet")
    return "given.parquet"


MASK = np.isin(np.arange(N), GIVEN)
FILES = {
    "array": lambda: as_npy(GIVEN),
    "unsigned": lambda: as_npy(GIVEN.astype(np.uint8)),
    "mask": lambda: as_npy(MASK),
    "fields": lambda: as_npy(
        np.array([(w, i) for i, w in zip(GIVEN, W, strict=False)], "f8,i8").astype(
            [("weight", "f8"), ("index", "i8")]
        )
    ),
    "lines": lambda: as_text("4\n0\n77\n31\n", "given"),
    "one column": lambda: as_text("position\n4\n0\n77\n31\n"),
    "column index": lambda: as_text("name,index\na,4\nb,0\nc,77\nd,31\n"),
    "spreadsheet": lambda: as_text("\ufeffindex,weight\r\n4,1.0\r\n0,1.0\r\n77,2\r\n31,1\r\n"),
    "column of a mask": lambda: as_text("labelled\n" + "".join(f"{m}\n" for m in MASK)),
    "lines of a mask": lambda: as_text("".join(f"{str(m).lower()}\n" for m in MASK)),
    "parquet": lambda: as_parquet(index=GIVEN, weight=np.ones(4)),
    "mask in parquet": lambda: as_parquet(labelled=MASK),
}


@pytest.mark.parametrize("kind", FILES)
def test_files_of_selected_samples(kind, capsys):
    expected = SkMMSelector(9, random_state=0).fit_transform(X, selected=GIVEN).tolist()
    assert expected != SkMMSelector(9, random_state=0).fit_transform(X).tolist()
    assert selected(capsys, "--selected", FILES[kind]()) == expected


def test_none_selected_yet(capsys):
    expected = selected(capsys)
    for path in (as_text("index,weight\n"), as_npy(np.empty(0, int)), as_npy(np.zeros(N, bool))):
        assert selected(capsys, "--selected", path) == expected


@pytest.mark.parametrize("name", ["batch.csv", "batch.npy", "batch"])
@pytest.mark.parametrize("selector", SELECTORS)
def test_one_run_continues_another(name, selector, capsys):
    found, options = [], ["--selector", selector, "--quiet"]
    for k in range(3):
        argv = ["select", "pool.npy", "--n", "7", *options, "--out", f"{k}{name}"]
        assert main(argv) == 0
        if name.endswith("npy"):
            found += np.load(f"{k}{name}")["index"].tolist()
        else:
            found += read_selection(Path(f"{k}{name}").read_text())[0].tolist()
        options += ["--selected", f"{k}{name}"]
    assert len(set(found)) == 21
    model = SELECTORS[selector](7)
    if "random_state" in model.get_params():
        model.set_params(random_state=0)
    assert model.fit_transform(X, selected=found[:14]).tolist() == found[14:]


BAD_FILES = {
    "missing": (lambda: "none.csv", "No such file"),
    "out of range": (lambda: as_text("index\n4\n120\n"), "positions from 4 to 120"),
    "negative": (lambda: as_text("-1\n"), "positions from -1"),
    "repeated": (lambda: as_text("index\n4\n4\n"), "repeated positions"),
    "short mask": (lambda: as_npy(MASK[:50]), "has 50 entries, but X has n_samples=120"),
    "floats": (lambda: as_npy(GIVEN + 0.5), "dtype float64"),
    "2-d": (lambda: as_npy(GIVEN[:, None]), "shape (4, 1)"),
    "objects": (lambda: as_npy(np.array([{}])), "Python objects"),
    "text": (lambda: as_text("index\n4\nx7\n"), "Got 'x7'"),
    "gap": (lambda: as_text("index,weight\n4,1\n,1\n"), "Got ''"),
    "no column": (lambda: as_text("a,b\n1,2\n"), "Got columns 'a', 'b'"),
    "no fields": (lambda: as_npy(np.zeros(3, "i8,i8")), "Got columns 'f0', 'f1'"),
    "ragged": (lambda: as_text("index,weight\n4\n"), "all lines must have 2 values"),
    "empty": (lambda: as_text(""), "empty"),
    "binary": (lambda: Path("given.csv").write_bytes(b"\xff\xfe\x00") and "given.csv", "utf-8"),
    "gaps in parquet": (lambda: as_parquet(a=[1.0, None]), "dtype float64"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_bad_files_of_selected_samples(kind, capsys):
    make, message = BAD_FILES[kind]
    path = make()
    argv = ["pool.npy", "--n", "9", "--quiet", "--out", "o.csv", "--selected", path]
    check_error(capsys, argv, f"--selected {path}: ", message)


def test_positions_in_two_files_and_too_many(capsys):
    np.save("a.npy", GIVEN)
    np.save("b.npy", [77, 78])
    argv = ["pool.npy", "--n", "9", "--quiet", "--selected", "a.npy", "--selected"]
    check_error(capsys, [*argv, "b.npy"], "--selected b.npy: position 77 is in another file")
    np.save("b.npy", np.setdiff1d(np.arange(N), GIVEN)[:-5])
    check_error(capsys, [*argv, "b.npy"], "n_to_select=9")


def test_the_selected_samples_are_never_replaced(capsys):
    as_text("index\n4\n")
    argv = ["pool.npy", "--n", "9", "--force", "--selected", "given.csv"]
    for option in ("--out", "--clusters"):
        check_error(capsys, [*argv, option, "given.csv"], "a file of --selected itself")


def table(name="pool.csv", **columns):
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(X, columns=list("abcdef")).assign(**columns)
    frame.to_csv(name, index=False)
    return frame


@pytest.mark.parametrize("unit", [1.0, 3.0])
def test_weights_are_a_column_that_is_not_a_feature(unit, capsys):
    table(w=unit * W)
    Path("given.csv").write_text("index\n4\n")
    argv = ["select", "pool.csv", "--n", "9", "--weight", "w", "--selected", "given.csv"]
    assert main(argv) == 0
    out, err = capsys.readouterr()
    indices, weight = read_selection(out)
    selector = SkMMSelector(9, random_state=0).fit(X, sample_weight=unit * W, selected=[4])
    assert indices.tolist() == selector.sample_indices_.tolist()
    np.testing.assert_allclose(weight, selector.sample_weight_)
    assert weight.sum() + selector.given_weight_.sum() == pytest.approx(unit * W.sum())
    assert W[indices].min() > 0
    assert "6 columns" in err
    assert "n = 9 besides 1 of --selected" in err
    assert "diagnostics below ignore the weights" in err


def test_equal_weights_have_their_unit(capsys):
    table(w=2)
    assert main(["select", "pool.csv", "--n", "9", "--weight", "w", "--quiet"]) == 0
    indices, weight = read_selection(capsys.readouterr().out)
    assert weight.sum() == pytest.approx(2 * N)
    assert indices.tolist() == SkMMSelector(9, random_state=0).fit_transform(X).tolist()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.where(np.arange(N) == 3, -1.0, 1.0), "Negative"),
        (np.where(np.arange(N) == 3, np.nan, 1.0), "NaN"),
        (np.where(np.arange(N) == 3, np.inf, 1.0), "infinity"),
        (np.zeros(N), ""),
        (["x"] * N, "must hold numbers"),
    ],
)
def test_bad_weights(values, message, capsys):
    table(w=values)
    argv = ["pool.csv", "--n", "9", "--quiet", "--out", "o.csv", "--weight"]
    check_error(capsys, [*argv, "w"], "pool.csv with --weight 'w': ", message)
    check_error(capsys, [*argv, "z"], "--weight 'z': no such column; its columns are 'a'")


@pytest.mark.parametrize(
    "argv",
    [
        ["pool.npy", "--weight", "w"],
        ["pool.csv", "--weight", "w", "--columns", "a,w"],
        ["pool.csv", "--weight", "w", "--stratify", "w"],
        ["pool.npy", "--clusters", "c.csv", "--selector", "k-center"],
        ["pool.npy", "--clusters", "c.csv", "--out", "c.csv"],
    ],
)
def test_wrong_usage(argv, capsys):
    check_error(capsys, [*argv, "--n", "9"], argv[1], code=2)


@pytest.mark.parametrize("name", ["clusters.csv", "clusters.npy"])
def test_clusters(name, capsys):
    table(w=W)
    Path("given.csv").write_text("index\n4\n")
    options = ["--weight", "w", "--selected", "given.csv", "--clusters", name]
    assert main(["select", "pool.csv", "--n", "9", "--quiet", *options]) == 0
    capsys.readouterr()
    if name.endswith("npy"):
        found = np.load(name)
    else:
        found = np.genfromtxt(io.StringIO(Path(name).read_text()), delimiter=",", names=True)
    assert found.dtype.names == ("sample", "represented_by")
    assert found["sample"].tolist() == list(range(N))
    selector = SkMMSelector(9, random_state=0).fit(X, sample_weight=W, selected=[4])
    for i, position in enumerate(found["represented_by"].astype(int)):
        label = selector.labels_[i]
        assert position == (-1 if label < 0 else selector.sample_indices_[label])
        assert position >= 0 or W[i] == 0 or label == -1
    for i in selector.sample_indices_:
        assert found["represented_by"][i] == i
    # A file of clusters is not one of selected samples.
    check_error(capsys, ["pool.npy", "--n", "9", "--selected", name], "'sample', 'represented_by'")


@pytest.mark.parametrize("name", SELECTORS)
def test_ranks(name, capsys):
    ordered = "in the order in which they were selected" in re.sub(
        r"\s+", " ", SELECTORS[name].__doc__
    )
    assert (name in IN_ORDER) == ordered
    table(label=np.arange(N) % 2)
    argv = ["select", "pool.csv", "--n", "9", "--selector", name, "--quiet", "--out"]
    assert main([*argv, "a.npy"]) == 0
    assert main([*argv, "b.npy", "--stratify", "label"]) == 0
    found = np.load("a.npy")
    assert found.dtype.names == ("index", "weight") + ordered * ("rank",)
    if ordered:
        assert found["rank"].tolist() == list(range(1, 10))
    assert np.load("b.npy").dtype.names == ("index", "weight")


def test_summary_is_of_the_whole_coreset():
    as_text("index\n4\n0\n")
    argv = ["select", "pool.npy", "--n", "9", "--quiet", "--selected", "given.csv"]
    assert main([*argv, "--out", "o.npy", "--summary", "s.json"]) == 0
    summary = json.loads(Path("s.json").read_text())
    assert (summary["n"], summary["n_selected_before"], summary["weight"]) == (9, 2, None)
    both = [0, 4, *np.load("o.npy")["index"]]
    assert summary["picks"]["mmd"] == pytest.approx(diagnostics.mmd(X, both))


def read_index(name):
    return np.load(name)["index"]


def test_per_class():
    table(label=np.arange(N) % 3)
    argv = ["select", "pool.csv", "--quiet", "--stratify", "label", "--per-class", "4", "--out"]
    assert main([*argv, "o.npy"]) == 0
    assert np.bincount(read_index("o.npy") % 3).tolist() == [4, 4, 4]
    assert main([*argv, "p.npy", "--summary", "s.json"]) == 0
    assert json.loads(Path("s.json").read_text())["n"] == 12


@pytest.mark.parametrize("name", ["skmm", "facility-location"])
def test_budget(name):
    cost = np.random.RandomState(0).lognormal(size=N)
    table(cost=cost)
    argv = ["select", "pool.csv", "--quiet", "--budget", "12.5", "--cost", "cost"]
    assert main([*argv, "--selector", name, "--out", "o.npy", "--summary", "s.json"]) == 0
    picks = read_index("o.npy")
    assert 0 < cost[picks].sum() <= 12.5
    assert json.loads(Path("s.json").read_text())["columns"] == X.shape[1]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--per-class", "4"], "--stratify"),
        (["--per-class", "4", "--n", "3"], "not allowed with"),
        (["--budget", "4"], "--budget and --cost need each other"),
        (["--n", "4", "--cost", "cost"], "--budget and --cost need each other"),
        (["--budget", "4", "--cost", "cost", "--stratify", "label"], "cannot be combined"),
        (["--budget", "4", "--cost", "cost", "--selector", "k-means"], "--budget needs --selector"),
        ([], "one of the arguments --n --per-class --budget is required"),
        (["--budget", "-1", "--cost", "cost"], "positive"),
    ],
)
def test_wrong_usage_of_counts(argv, message, capsys):
    table(cost=np.ones(N), label=np.arange(N) % 2)
    check_error(capsys, ["pool.csv", *argv], message, code=2)


@pytest.mark.parametrize(("cost", "message"), [(-1.0, "must be positive"), (np.nan, "NaN")])
def test_costs_that_cannot_be_used(cost, message, capsys):
    table(cost=np.where(np.arange(N) == 3, cost, 1.0))
    check_error(capsys, ["pool.csv", "--budget", "4", "--cost", "cost"], message)
