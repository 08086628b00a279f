"""Pools of embeddings in Parquet, and of sparse matrices."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from sklearn_skmm.cli._main import SELECTORS, main
from sklearn_skmm.data import SamplesFile, open_samples

pd = pytest.importorskip("pandas")
pa = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

N = 60
X = np.random.RandomState(0).normal(size=(N, 5)).astype(np.float32)
FORMATS = [
    f"{kind}_{of}" for kind in ("csr", "csc", "coo", "bsr", "dia") for of in ("matrix", "array")
]


@pytest.fixture(autouse=True)
def in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("plain.npy", X)


def picks(capsys, *argv):
    assert main(["select", *argv, "--n", "6", "--quiet"]) == 0
    return np.genfromtxt(io.StringIO(capsys.readouterr().out), delimiter=",", names=True).tolist()


def refused(capsys, *argv):
    assert main(["select", *argv, "--n", "6", "--quiet"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    return err


def write(path="pool.parquet", **columns):
    pq.write_table(pa.table(columns), path)


def lists(values=X, kind=None):
    return pa.array([None if v is None else list(v) for v in values], type=kind)


# Every way to write the same lists.
KINDS = {
    "pandas": lambda: pd.DataFrame({"embedding": list(X)}).to_parquet("pool.parquet"),
    "lists": lambda: write(embedding=lists(kind=pa.list_(pa.float32()))),
    "large lists": lambda: write(embedding=lists(kind=pa.large_list(pa.float32()))),
    "lists of fixed size": lambda: write(embedding=lists(kind=pa.list_(pa.float32(), 5))),
    "with texts": lambda: write(
        id=[f"doc{k}" for k in range(N)], embedding=lists(kind=pa.list_(pa.float32()))
    ),
    "with numbers": lambda: write(
        id=np.arange(N) ** 3, embedding=lists(kind=pa.list_(pa.float32())), year=np.ones(N)
    ),
    "with lists of texts": lambda: write(
        tags=[["a"] * (k % 3) for k in range(N)], embedding=lists(kind=pa.list_(pa.float32()))
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_column_of_lists_is_its_entries(kind, capsys):
    KINDS[kind]()
    samples = open_samples(SamplesFile("pool.parquet"))
    np.testing.assert_array_equal(samples.X, X)
    assert samples.X.dtype == np.float32
    expected = picks(capsys, "plain.npy")
    assert picks(capsys, "pool.parquet") == expected
    assert picks(capsys, "pool.parquet", "--columns", "embedding") == expected


def test_data_sets_of_hugging_face(capsys):
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    try:
        datasets.Dataset.from_dict({"text": ["a"] * N, "v": X.tolist()}).to_parquet("pool.parquet")
    finally:
        datasets.enable_progress_bars()
    capsys.readouterr()
    np.testing.assert_allclose(open_samples(SamplesFile("pool.parquet")).X, X)
    assert picks(capsys, "pool.parquet")


@pytest.mark.parametrize("kind", ["float64", "float16", "int8", "int64", "uint16", "bool"])
def test_lists_of_every_kind_of_number(kind):
    values = (10 * X).astype(kind)
    write(embedding=lists(values, pa.list_(pa.from_numpy_dtype(kind))))
    samples = open_samples(SamplesFile("pool.parquet"))
    assert samples.X.dtype == np.float64
    np.testing.assert_array_equal(samples.X, values.astype(float))


def test_columns_of_lists_and_of_numbers_are_put_together(capsys):
    label = np.where(np.arange(N) % 3, "often", "rare")
    single = pa.list_(pa.float32())
    write(
        a=lists(X[:, :2], single), b=X[:, 2], c=lists(X[:, 3:], single), d=np.arange(N), label=label
    )
    for names, expected in (
        ("a,b,c", X),
        ("c,a", X[:, [3, 4, 0, 1]]),
        ("b,c", X[:, 2:]),
        ("d,b", np.c_[np.arange(N), X[:, 2]]),
        ("a,d", np.c_[X[:, :2], np.arange(N)]),
    ):
        samples = open_samples(SamplesFile("pool.parquet", columns=names.split(",")))
        np.testing.assert_array_equal(samples.X, expected)
        assert samples.X.dtype == (np.float64 if "d" in names else np.float32)
    assert picks(capsys, "pool.parquet", "--columns", "a,b,c") == picks(capsys, "plain.npy")
    indices = [
        row[0] for row in picks(capsys, "pool.parquet", "--columns", "a", "--stratify", "label")
    ]
    assert sum(label[int(k)] == "rare" for k in indices) == 2
    assert "must have at most one column of lists, but it has 'a', 'c'" in refused(
        capsys, "pool.parquet"
    )


def test_what_is_left_out_is_said(capsys):
    KINDS["with numbers"]()
    assert main(["select", "pool.parquet", "--n", "6", "--summary", "summary.json"]) == 0
    assert "columns not used (beside the lists in 'embedding'): 'id', 'year'" in (
        capsys.readouterr().err
    )
    summary = json.loads(Path("summary.json").read_text())
    assert summary["columns"] == 5
    assert summary["left_out"] == ["id", "year"]


RAGGED = [row[: 5 - (k == 7)] for k, row in enumerate(X)]
MISSING = [None if k in (0, 7) else row for k, row in enumerate(X)]
BAD_LISTS = {
    "ragged": (lambda: lists(RAGGED), "equal length in 'v'. Got lengths from 4 to 5"),
    "null": (lambda: lists(MISSING), "2 missing lists in 'v'"),
    "null entry": (
        lambda: pa.array([[1.0, None if k == 3 else 2.0] for k in range(N)]),
        "contains NaN",
    ),
    "null integer": (
        lambda: pa.array([[1, None if k == 3 else k] for k in range(N)]),
        "contains NaN",
    ),
    "infinite": (lambda: lists(np.where(X > 2, np.inf, X)), "contains infinity"),
    "empty": (lambda: pa.array([[]] * N, pa.list_(pa.float32())), "0 feature(s)"),
    "texts": (lambda: pa.array([["a", "b"]] * N), "no numeric columns"),
    "nested": (lambda: pa.array([[[1.0], [2.0]]] * N), "no numeric columns"),
    "all null": (lambda: pa.array([None] * N, pa.list_(pa.float32())), "no numeric columns"),
}


@pytest.mark.parametrize("name", BAD_LISTS)
def test_bad_lists_are_refused(name, capsys):
    make, message = BAD_LISTS[name]
    write(v=make())
    assert message in refused(capsys, "pool.parquet")
    named = refused(capsys, "pool.parquet", "--columns", "v")
    assert message in named or "not numeric: 'v'" in named


def sparse_pool():
    return np.where(np.abs(X) > 0.7, X, 0.0).astype(np.float32)


@pytest.mark.parametrize(
    ("form", "selector"),
    [(form, "skmm") for form in FORMATS] + [("csr_array", name) for name in SELECTORS],
)
def test_sparse_matrices_are_read(form, selector, capsys):
    np.save("dense.npy", sparse_pool())
    sparse.save_npz("pool.npz", getattr(sparse, form)(sparse_pool()))
    samples = open_samples(SamplesFile("pool.npz"))
    assert samples.X.format == "csr"
    assert samples.X.dtype == np.float32
    np.testing.assert_array_equal(samples.X.toarray(), sparse_pool())
    options = ["--selector", selector]
    np.testing.assert_allclose(
        picks(capsys, "pool.npz", *options), picks(capsys, "dense.npy", *options)
    )
    options += ["--m", "3"]
    assert len(picks(capsys, "pool.npz", *options)) == 6


@pytest.mark.parametrize(
    ("form", "wide"),
    # SciPy warns of many diagonals.
    [(form, wide) for form in FORMATS for wide in (False, True) if not (wide and "dia" in form)],
)
def test_summary_of_a_sparse_pool(form, wide, capsys):
    dense = np.tile(sparse_pool(), (1, 20)) if wide else sparse_pool()
    np.save("dense.npy", dense)
    sparse.save_npz("pool.npz", getattr(sparse, form)(dense), compressed=False)
    summaries = []
    for pool in ("dense.npy", "pool.npz"):
        argv = ["select", pool, "--n", "6", "--m", "none", "--summary", f"{pool}.json"]
        assert main([*argv, "--quiet"]) == 0
        summaries.append(json.loads(Path(f"{pool}.json").read_text()))
    capsys.readouterr()
    assert summaries[0].keys() == summaries[1].keys()
    for measure in ("picks", "uniform"):
        for name, value in summaries[0][measure].items():
            if value is not None and name != "effective_c_S":
                assert summaries[1][measure][name] == pytest.approx(value, rel=1e-3, abs=1e-6)


def saved_parts(**changes):
    matrix = sparse.csr_matrix(sparse_pool())
    parts = {"format": b"csr", "shape": matrix.shape, "data": matrix.data}
    parts |= {"indices": matrix.indices, "indptr": matrix.indptr}
    np.savez("pool.npz", **(parts | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"indices": np.full(10**3, 99)}, ""),
        ({"indptr": np.zeros(3, dtype=int)}, ""),
        ({"format": b"lil"}, "lil"),
        ({"format": b"unheard"}, "unheard"),
        ({"shape": (N, 5, 2)}, ""),
        ({"data": np.array([object()])}, "Python objects"),
    ],
    ids=range(6),
)
def test_damaged_sparse_matrices_are_refused(changes, message, capsys):
    saved_parts(**changes)
    err = refused(capsys, "pool.npz")
    assert "pool.npz" in err
    assert message in err


def test_positions_outside_of_a_sparse_matrix_are_refused(capsys):
    matrix = sparse.csr_matrix(sparse_pool())
    for wrong in (5, 10**6, -1):
        indices = matrix.indices.copy()
        indices[3] = wrong
        saved_parts(indices=indices)
        assert "pool.npz cannot be read" in refused(capsys, "pool.npz")


def test_other_sparse_matrices_are_refused(capsys):
    sparse.save_npz("pool.npz", sparse.csr_array(sparse_pool() + 1j))
    assert "must contain a 2-d sparse matrix of real numbers" in refused(capsys, "pool.npz")
    sparse.save_npz("pool.npz", sparse.csr_array(np.where(X > 1, np.nan, X)))
    for name in SELECTORS:
        assert "contains NaN" in refused(capsys, "pool.npz", "--selector", name)


def test_plain_arrays_are_named_as_before(capsys):
    np.savez("pool.npz", format=X, shape=X[:, :2], data=X[:, 1:])
    assert "Choose one with --key" in refused(capsys, "pool.npz")
    assert picks(capsys, "pool.npz", "--key", "format") == picks(capsys, "plain.npy")
    sparse.save_npz("pool.npz", sparse.csr_array(X))
    assert "2-d array of real numbers" in refused(capsys, "pool.npz", "--key", "data")


@pytest.mark.parametrize("name", SELECTORS)
def test_values_that_are_not_finite_are_refused_by_every_selector(name, capsys):
    np.save("gaps.npy", np.where(X > 1, np.nan, X))
    for m in ("none", "3"):
        assert "contains NaN" in refused(capsys, "gaps.npy", "--selector", name, "--m", m)
