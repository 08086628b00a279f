"""The command line selects the same samples as the Python API and changes no other files."""

import builtins
import importlib
import io
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import sklearn_skmm
from sklearn_skmm import (
    GradientSketcher,
    SkMMSelector,
    UniformSelector,
    VOptimalSelector,
    diagnostics,
)
from sklearn_skmm.cli._main import SELECTORS, main
from sklearn_skmm.data import SamplesFile, open_samples

X = np.random.RandomState(0).normal(size=(120, 6)) * [5, 3, 1, 1, 0.1, 0.1]


@pytest.fixture(autouse=True)
def in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("pool.npy", X)
    return tmp_path


@pytest.fixture
def frame():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(X, columns=list("abcdef"))
    frame.insert(2, "name", [f"row {i}" for i in range(len(X))])
    frame["label"] = np.where(np.arange(len(X)) % 3, "often", "rare")
    frame.to_csv("pool.csv", index=False)
    return frame


def read_selection(text):
    table = np.genfromtxt(io.StringIO(text), delimiter=",", names=True)
    assert table.dtype.names in (("index", "weight"), ("index", "weight", "rank"))
    return table["index"].astype(int), table["weight"]


def check_error(capsys, argv, *words, code=1):
    """Check that the command fails with this message and leaves the folder unchanged."""
    before = snapshot()
    assert main(["select", *argv]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    lines = err.splitlines()
    if code == 1:
        assert len(lines) == 1
        assert lines[0].startswith("sklearn-skmm: error: ")
    assert all(word in lines[-1] for word in words), err
    assert snapshot() == before


def snapshot():
    def content(path):
        if os.path.islink(path):
            return os.readlink(path)
        return None if os.path.isdir(path) else Path(path).read_bytes()

    return {path: content(path) for path in os.listdir()}


@pytest.mark.parametrize("name", SELECTORS)
def test_same_selection_as_in_python(name, capsys):
    assert main(["select", "pool.npy", "--n", "10", "--selector", name, "--m", "4"]) == 0
    indices, weight = read_selection(capsys.readouterr().out)
    selector = SELECTORS[name](10)
    if "random_state" in selector.get_params():
        selector.set_params(random_state=0)
    selector.fit(GradientSketcher(4, random_state=0).fit_transform(X))
    assert indices.tolist() == selector.sample_indices_.tolist()
    assert weight.tolist() == selector.sample_weight_.tolist()


def test_every_selector_without_labels_is_available():
    names = [name for name in sklearn_skmm.__all__ if name.endswith("Selector")]
    excluded = {"GradNormSelector", "UncertaintySelector"}
    assert {cls.__name__ for cls in SELECTORS.values()} == set(names) - excluded


def test_fraction_seed_and_c_S(capsys):
    argv = ["--n", "0.1", "--seed", "7", "--c-S", "0.5", "--m", "none", "--quiet"]
    assert main(["select", "pool.npy", *argv]) == 0
    out, err = capsys.readouterr()
    selector = SkMMSelector(0.1, c_S=0.5, random_state=7).fit(X)
    assert read_selection(out)[0].tolist() == selector.sample_indices_.tolist()
    assert len(selector.sample_indices_) == 12
    assert err == ""
    default = SkMMSelector(0.1, random_state=7).fit(X)
    assert default.sample_indices_.tolist() != selector.sample_indices_.tolist()


@pytest.mark.parametrize("name", ["idx.csv", "idx.npy", "idx"])
def test_output_file(name, capsys):
    assert main(["select", "pool.npy", "--n", "9", "--out", name]) == 0
    assert capsys.readouterr().out == ""
    selector = SkMMSelector(9, random_state=0).fit(X)
    if name.endswith(".npy"):
        table = np.load(name, allow_pickle=False)
        indices, weight = table["index"], table["weight"]
    else:
        indices, weight = read_selection(Path(name).read_text())
    assert indices.tolist() == selector.sample_indices_.tolist()
    assert weight.tolist() == selector.sample_weight_.tolist()
    assert sorted(os.listdir()) == sorted([name, "pool.npy"])
    umask = os.umask(0)
    os.umask(umask)
    assert os.stat(name).st_mode & 0o777 == 0o666 & ~umask


def test_npz_arrays(capsys):
    np.savez("one.npz", only=X)
    np.savez("two.npz", a=X, b=X[::-1])
    outputs = []
    for argv in (["one.npz"], ["two.npz", "--key", "a"], ["two.npz", "--key", "b"]):
        assert main(["select", *argv, "--n", "9", "--quiet", "--out", "-"]) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1] != outputs[2]
    check_error(capsys, ["two.npz", "--n", "9"], "'a', 'b'", "--key")
    check_error(capsys, ["two.npz", "--n", "9", "--key", "c"], "no array 'c'", "'a', 'b'")


def test_csv_table(frame, capsys):
    assert main(["select", "pool.csv", "--n", "9"]) == 0
    out, err = capsys.readouterr()
    expected = SkMMSelector(9, random_state=0).fit_transform(X)
    assert read_selection(out)[0].tolist() == expected.tolist()
    assert "columns not used (text or row labels): 'name', 'label'" in err


def test_columns_and_strata(frame, capsys):
    argv = ["--columns", "b,a", "--stratify", "label", "--quiet"]
    assert main(["select", "pool.csv", "--n", "9", *argv]) == 0
    selector = SkMMSelector(9, stratify=True, random_state=0)
    expected = selector.fit_transform(frame[["b", "a"]], frame["label"])
    out, err = capsys.readouterr()
    assert read_selection(out)[0].tolist() == expected.tolist()
    assert err == ""


def test_numeric_labels_are_not_used_as_a_feature(frame, capsys):
    frame["label"] = np.arange(len(X)) % 2 * 1e6
    frame.to_csv("pool.csv", index=False)
    assert main(["select", "pool.csv", "--n", "9", "--stratify", "label", "--quiet"]) == 0
    selector = SkMMSelector(9, stratify=True, random_state=0)
    expected = selector.fit_transform(X, frame["label"])
    assert read_selection(capsys.readouterr().out)[0].tolist() == expected.tolist()


def test_row_labels_are_not_used_as_a_feature(frame, capsys):
    frame.to_csv("pool.csv")
    assert main(["select", "pool.csv", "--n", "9"]) == 0
    out, err = capsys.readouterr()
    assert (
        read_selection(out)[0].tolist() == SkMMSelector(9, random_state=0).fit_transform(X).tolist()
    )
    assert "'Unnamed: 0'" in err


def test_parquet(frame, capsys):
    pytest.importorskip("pyarrow")
    frame = frame.astype(dict.fromkeys("abcdef", np.float32))
    frame.to_parquet("pool.parquet")
    assert main(["select", "pool.parquet", "--n", "9", "--m", "4", "--stratify", "label"]) == 0
    out, err = capsys.readouterr()
    sketch = GradientSketcher(4, random_state=0).fit_transform(frame[list("abcdef")])
    assert (
        sketch.dtype
        == open_samples(SamplesFile("pool.parquet", columns=["a", "b"])).dtype
        == np.float32
    )
    selector = SkMMSelector(9, stratify=True, random_state=0)
    assert (
        read_selection(out)[0].tolist() == selector.fit_transform(sketch, frame["label"]).tolist()
    )
    assert "columns not used (text or row labels): 'name'\n" in err
    Path("bad.parquet").write_text("no parquet")
    check_error(capsys, ["bad.parquet", "--n", "9"], "bad.parquet cannot be read")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--columns", "a,z"], ["no column 'z'", "'label'"]),
        (["--stratify", "z"], ["no column 'z'"]),
        (["--columns", "a,name"], ["not numeric: 'name'"]),
        (["--n", "121"], ["n_to_select=121", "120"]),
    ],
)
def test_bad_table_arguments(frame, capsys, argv, words):
    check_error(capsys, ["pool.csv", "--n", "9", *argv, "--quiet"], *words)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["cannot be read"]),
        ("0.25,1.5\n1,2\n3,4\n", ["must begin with a line of column names", "'0.25'"]),
        ("a,b\nx,y\n", ["no numeric columns"]),
        ("a,b\n1,2\n,3\n", ["NaN"]),
        ("a,b\n1,2,3,4\n1\n1,2,3,4,5,6\n", ["cannot be read"]),
    ],
)
def test_bad_csv(capsys, text, words):
    pytest.importorskip("pandas")
    Path("bad.csv").write_text(text)
    check_error(capsys, ["bad.csv", "--n", "1", "--out", "idx.csv"], *words)


def test_missing_labels(frame, capsys):
    frame.loc[3, "label"] = None
    frame.to_csv("pool.csv", index=False)
    check_error(capsys, ["pool.csv", "--n", "9", "--stratify", "label"], "1 missing labels")


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (X[0], ["2-d", "(6,)"]),
        (X.astype(complex), ["real", "complex128"]),
        (X.astype(str), ["real"]),
        (np.where(X > 9, np.nan, X), ["contains NaN"]),
    ],
)
def test_bad_array(capsys, array, words):
    np.save("bad.npy", array)
    check_error(capsys, ["bad.npy", "--n", "9", "--out", "idx.csv"], *words)


class Trap:
    def __reduce__(self):
        return (os.mkdir, ("sprung",))


def test_pickles_are_not_loaded(capsys):
    np.save("objects.npy", np.array([[Trap()]], dtype=object))
    np.savez("objects.npz", a=np.array([[Trap()]], dtype=object))
    with open("raw.npy", "wb") as file:
        pickle.dump(Trap(), file)
    for name in ("objects.npy", "objects.npz", "raw.npy"):
        check_error(capsys, [name, "--n", "1"], f"{name} cannot be read")
    assert not os.path.exists("sprung")
    with open("raw.npy", "rb") as file:
        pickle.load(file)
    assert os.path.exists("sprung")  # the trap works


def test_missing_and_unreadable_pools(capsys):
    check_error(capsys, ["none.npy", "--n", "9"], "none.npy: No such file")
    Path("broken.npz").write_bytes(b"PK\x03\x04 and no more")
    check_error(capsys, ["broken.npz", "--n", "9"], "broken.npz cannot be read")


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["--n", "0"],
        ["--n", "1.5"],
        ["--n", "-0.5"],
        ["--n", "nan"],
        ["--n", "9", "--m", "0"],
        ["--n", "9", "--seed", "-1"],
        ["--n", "9", "--c-S", "0"],
        ["--n", "9", "--c-S", "1", "--selector", "uniform"],
        ["--n", "9", "--selector", "best"],
        ["--n", "9", "--key", "a"],
        ["--n", "9", "--columns", "a"],
        ["--n", "9", "--stratify", "a"],
        ["--n", "9", "--plot", "idx.txt"],
        ["--n", "9", "--summary", "idx.txt"],
        ["--n", "9", "--summary", "a.json", "--out", "./a.json"],
        ["--n", "9", "--sel", "uniform"],
    ],
)
def test_wrong_usage(capsys, argv):
    check_error(capsys, ["pool.npy", *argv], "sklearn-skmm", "error: ", code=2)


@pytest.mark.parametrize(
    "argv",
    [["pool.txt", "--n", "9"]]
    + [["pool.csv", "--n", "9", "--columns", names] for names in ("", "a,,b", "a,a")]
    + [["pool.csv", "--n", "9", "--columns", "a,b", "--stratify", "b"]],
)
def test_wrong_usage_of_tables(capsys, argv):
    check_error(capsys, argv, "sklearn-skmm select: error: ", code=2)


def test_no_command_and_version(capsys):
    assert main([]) == 2
    assert "usage: sklearn-skmm" in capsys.readouterr().err
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"sklearn-skmm {sklearn_skmm.__version__}\n"


@pytest.mark.parametrize("option", ["--out", "--summary", "--plot"])
def test_existing_output_is_replaced_only_with_force(capsys, option):
    if option == "--plot":
        pytest.importorskip("matplotlib")
    name = {"--out": "o.csv", "--summary": "s.json", "--plot": "p.png"}[option]
    argv = ["pool.npy", "--n", "9", "--quiet", option, name]
    Path(name).write_text("precious")
    check_error(capsys, argv, f"{name} exists", "--force")
    assert main(["select", *argv, "--force"]) == 0
    assert b"precious" not in Path(name).read_bytes()
    assert sorted(os.listdir()) == sorted([name, "pool.npy"])


@pytest.mark.parametrize("target_exists", [True, False])
def test_symbolic_link_at_the_output_is_replaced_only_with_force(capsys, target_exists):
    if target_exists:
        Path("theirs.csv").write_text("precious")
    os.symlink("theirs.csv", "idx.csv")
    argv = ["pool.npy", "--n", "9", "--out", "idx.csv"]
    check_error(capsys, argv, "idx.csv exists")
    assert main(["select", *argv, "--force"]) == 0
    assert not os.path.islink("idx.csv")
    assert len(read_selection(Path("idx.csv").read_text())[0]) == 9
    assert os.path.exists("theirs.csv") == target_exists
    assert not target_exists or Path("theirs.csv").read_text() == "precious"


def test_outputs_that_are_rejected_even_with_force(capsys):
    os.mkdir("folder")
    os.symlink("pool.npy", "link.npy")
    argv = ["--n", "9", "--force", "--out"]
    check_error(capsys, ["pool.npy", *argv, "folder"], "not a regular file")
    check_error(capsys, ["pool.npy", *argv, "nowhere/idx.csv"], "folder 'nowhere' does not exist")
    check_error(capsys, ["pool.npy", *argv, "folder/../pool.npy"], "the pool itself")
    check_error(capsys, ["link.npy", *argv, "pool.npy"], "the pool itself")
    check_error(capsys, ["link.npy", *argv, "link.npy"], "the pool itself")


def test_read_only_folder(capsys, monkeypatch):
    os.mkdir("folder", 0o500)
    if os.access("folder", os.W_OK):  # root writes anywhere
        monkeypatch.setattr(os, "access", lambda path, mode: path != "folder")
    check_error(
        capsys,
        ["pool.npy", "--n", "9", "--out", "folder/a.csv"],
        "no permission to write to the folder",
    )


@pytest.mark.parametrize("links", [True, False])
def test_output_created_meanwhile_is_not_overwritten(capsys, monkeypatch, links):
    real = os.link

    def link(source, target):
        if target == "idx.csv":
            Path(target).write_text("precious")
        if not links:
            raise PermissionError("no hard links")
        real(source, target)

    monkeypatch.setattr(os, "link", link)
    assert main(["select", "pool.npy", "--n", "9", "--out", "idx.csv"]) == 1
    assert "idx.csv exists" in capsys.readouterr().err
    assert Path("idx.csv").read_text() == "precious"
    assert sorted(os.listdir()) == ["idx.csv", "pool.npy"]


def test_without_hard_links(monkeypatch):
    def link(source, target):
        raise PermissionError("no hard links")

    monkeypatch.setattr(os, "link", link)
    assert main(["select", "pool.npy", "--n", "9", "--out", "idx.csv"]) == 0
    assert len(read_selection(Path("idx.csv").read_text())[0]) == 9
    assert sorted(os.listdir()) == ["idx.csv", "pool.npy"]


@pytest.mark.parametrize(
    ("error", "code"), [(OSError(28, "No space left on device"), 1), (KeyboardInterrupt(), 130)]
)
def test_interrupted_write_leaves_no_files(capsys, monkeypatch, error, code):
    def fsync(descriptor):
        assert len(os.listdir()) == 2  # a temporary file is there
        raise error

    monkeypatch.setattr(os, "fsync", fsync)
    argv = ["select", "pool.npy", "--n", "9", "--out", "idx.csv", "--summary", "s.json"]
    assert main(argv) == code
    err = capsys.readouterr().err
    assert err == ("sklearn-skmm: error: idx.csv: No space left on device\n" if code == 1 else "")
    assert os.listdir() == ["pool.npy"]


def test_summary(capsys):
    argv = ["select", "pool.npy", "--n", "9", "--selector", "v-optimal", "--summary", "s.json"]
    assert main(argv) == 0
    err = capsys.readouterr().err
    summary = json.loads(Path("s.json").read_text())
    indices = VOptimalSelector(9).fit_transform(X)
    alpha = np.square(X).sum(axis=1).mean() / len(X)
    assert (summary["N"], summary["columns"], summary["m"], summary["n"]) == (120, 6, None, 9)
    assert summary["sketch"] == "none (6 columns, m = 64)"
    assert summary["intrinsic_dimension"] == diagnostics.intrinsic_dimension(X)
    assert summary["picks"] == pytest.approx(
        {
            "mmd": diagnostics.mmd(X, indices),
            "coverage": diagnostics.coverage(X, indices),
            "effective_c_S": diagnostics.effective_c_S(X, indices),
            "variance_term": diagnostics.variance_term(X, indices),
            "bias_term": diagnostics.bias_term(X, indices),
            "v_optimality": diagnostics.v_optimality(X, indices, alpha=alpha),
        },
        abs=1e-9,
    )
    assert summary["picks"]["v_optimality"] < summary["uniform"]["v_optimality"]
    for text in (
        "N = 120, 6 columns",
        summary["sketch"],
        "n = 9, v-optimal, seed 0",
        "V-optimality",
    ):
        assert text in err
    for key in ("uniform", "uniform_min", "uniform_max"):
        assert f"{summary[key]['variance_term']:.4g}" in err
    for name, value in summary["uniform"].items():
        assert summary["uniform_min"][name] <= value <= summary["uniform_max"][name]
    random = UniformSelector(9, random_state=np.random.RandomState([0, 1]))
    found = [diagnostics.coverage(X, random.fit_transform(X)) for _ in range(20)]
    assert summary["uniform"]["coverage"] == pytest.approx(np.median(found))


def test_summary_when_all_samples_are_selected():
    argv = ["select", "pool.npy", "--n", "1.0", "--summary", "s.json"]
    assert main(argv) == 0
    summary = json.loads(Path("s.json").read_text())
    assert summary["n"] == 120
    assert summary["picks"]["effective_c_S"] == pytest.approx(1.0)
    assert summary["uniform"] == pytest.approx(summary["picks"], abs=1e-9)


def test_summary_of_fewer_samples_than_directions(capsys):
    argv = ["select", "pool.npy", "--n", "2", "--m", "none", "--quiet", "--summary", "s.json"]
    assert main(argv) == 0
    assert capsys.readouterr().err == ""
    summary = json.loads(Path("s.json").read_text(), parse_constant=pytest.fail)
    assert summary["sketch"] == "none (--m none)"
    assert summary["picks"]["effective_c_S"] is None
    assert summary["uniform"]["bias_term"] > 0


def test_summary_of_wide_and_of_zero_pools():
    wide = np.random.RandomState(1).normal(size=(30, 200))
    np.save("wide.npy", wide)
    np.save("zero.npy", np.zeros((30, 3)))
    for name in ("wide", "zero"):
        argv = [f"{name}.npy", "--n", "9", "--m", "none", "--summary", f"{name}.json"]
        assert main(["select", *argv]) == 0
    indices = SkMMSelector(9, random_state=0).fit_transform(wide)
    reached = json.loads(Path("wide.json").read_text())["picks"]
    assert reached["variance_term"] == pytest.approx(diagnostics.variance_term(wide, indices))
    assert reached["bias_term"] == pytest.approx(diagnostics.bias_term(wide, indices))
    assert json.loads(Path("zero.json").read_text())["picks"]["v_optimality"] == 0.0


@pytest.mark.parametrize(
    ("m", "text"),
    [("5", "m = 5"), ("6", "none (6 columns, m = 6)"), ("none", "none (--m none)")],
)
def test_sketch_is_reported(capsys, m, text):
    assert main(["select", "pool.npy", "--n", "9", "--m", m]) == 0
    assert f"sketch               {text}\n" in capsys.readouterr().err


def test_plot(capsys):
    pytest.importorskip("matplotlib")
    argv = ["select", "pool.npy", "--n", "9", "--plot"]
    assert main([*argv, "out.png"]) == 0
    assert Path("out.png").read_bytes().startswith(b"\x89PNG")
    assert main([*argv, "out.svg"]) == 0
    assert "coreset, n = 9" in Path("out.svg").read_text()


def test_progress_is_not_written_to_stdout(capsys):
    pytest.importorskip("rich", reason="scikit-learn's ProgressBar needs rich")
    assert main(["select", "pool.npy", "--n", "9", "--progress", "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert len(read_selection(out)[0]) == 9
    assert "SkMMSelector" in err


@pytest.mark.parametrize(
    ("package", "argv", "words"),
    [
        ("pandas", ["pool.csv"], "sklearn-skmm[pandas]"),
        ("pyarrow", ["pool.parquet"], "pip install pyarrow"),
        ("matplotlib", ["pool.npy", "--plot", "out.png"], "sklearn-skmm[plot]"),
        ("rich", ["pool.npy", "--progress"], "pip install rich"),
    ],
)
def test_missing_package(capsys, monkeypatch, package, argv, words):
    if package == "pyarrow":
        pytest.importorskip("pandas")
        Path("pool.parquet").touch()
    else:
        Path("pool.csv").write_text("a\n1\n")
    real = builtins.__import__

    def absent(name, *args, **kwargs):
        if name.split(".")[0] == package:
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", absent)
    # pandas imports its own optional dependencies in another way.
    monkeypatch.setitem(sys.modules, package, None)
    check_error(capsys, [*argv, "--n", "1", "--out", "idx.csv"], package, words)


def test_full_disk_without_hard_links(capsys, monkeypatch):
    """The file created first, to reserve the name, is removed after the error."""

    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "link", fail)
    monkeypatch.setattr(os, "replace", fail)
    check_error(capsys, ["pool.npy", "--n", "9", "--quiet", "--out", "idx.csv"], "No space left")


def test_import_of_the_main_module_runs_nothing(capsys):
    """Some tools import every module of a package."""
    sys.modules.pop("sklearn_skmm.__main__", None)
    importlib.import_module("sklearn_skmm.__main__")
    assert capsys.readouterr() == ("", "")


def test_interrupt(capsys, monkeypatch):
    def select(self, *args):
        raise KeyboardInterrupt

    monkeypatch.setattr(SkMMSelector, "_select", select)
    assert main(["select", "pool.npy", "--n", "9", "--out", "idx.csv"]) == 130
    assert capsys.readouterr() == ("", "")
    assert os.listdir() == ["pool.npy"]


@pytest.mark.slow
def test_run_as_a_module():
    argv = [sys.executable, "-m", "sklearn_skmm", "select", "pool.npy", "--n", "9", "--quiet"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    expected = SkMMSelector(9, random_state=0).fit_transform(X)
    assert read_selection(done.stdout)[0].tolist() == expected.tolist()
    assert done.stderr == ""
    # The reader has closed the pipe, as `head` does.
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(argv, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


NEEDS_FULL_DEVICE = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")


@NEEDS_FULL_DEVICE
@pytest.mark.parametrize(
    ("argv", "stream", "code", "message"),
    [
        (["--quiet", "--summary", "s.json"], "stdout", 1, "stdout: No space left on device"),
        (["--help"], "stdout", 1, "stdout: No space left on device"),
        (["--no-such-option"], "stderr", 2, None),
        # Messages on stderr are not part of the result.
        (["--out", "-"], "stderr", 0, None),
    ],
)
@pytest.mark.slow
def test_full_stdout_and_stderr(argv, stream, code, message):
    """Without special care, Python exits with 120 after a message of several lines."""
    argv = [sys.executable, "-m", "sklearn_skmm", "select", "pool.npy", "--n", "9", *argv]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    env = os.environ | {"PYTHONUNBUFFERED": ""}  # the default for users
    with open("/dev/full", "w") as full:
        done = subprocess.run(argv, **(pipes | {stream: full}), text=True, env=env)
    assert done.returncode == code
    if message is not None:
        assert done.stderr == f"sklearn-skmm: error: {message}\n"
    if code == 0:
        assert len(read_selection(done.stdout)[0]) == 9
    assert os.listdir() == ["pool.npy"]


@NEEDS_FULL_DEVICE
def test_output_may_not_be_a_device(capsys):
    check_error(
        capsys, ["pool.npy", "--n", "9", "--force", "--out", "/dev/full"], "not a regular file"
    )


@pytest.mark.parametrize("missing", ["stdout", "stderr"])
def test_closed_stdout_and_stderr(capsys, monkeypatch, missing):
    """Python sets a closed stream to None, and ``print(file=None)`` writes to stdout."""
    monkeypatch.setattr(sys, missing, None)
    code = main(["select", "pool.npy", "--n", "9", "--summary", "s.json"])
    out, err = capsys.readouterr()
    if missing == "stderr":
        assert code == 0
        assert len(read_selection(out)[0]) == 9
        assert err == ""
    else:
        assert code == 1
        assert "--out" in err
        assert os.listdir() == ["pool.npy"]
    assert main(["select", "pool.npy"]) == 2
    assert main(["--version"]) == 0


def test_npy_output_beyond_the_file_size_limit(capsys):
    """NumPy writes so few indices to a file without checking for an error."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Room for the header, not for all indices.
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, limits[1]))
    try:
        check_error(
            capsys, ["pool.npy", "--n", "9", "--quiet", "--out", "a.npy"], "a.npy: File too"
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
