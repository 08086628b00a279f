"""The door for data: what each container opens to, and what is refused there."""

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.base import BaseEstimator

from sklearn_skmm.data import Reader, Samples, SamplesFile, open_samples
from sklearn_skmm.data import _open as door
from sklearn_skmm.data._samples import Source, Strata

X = np.arange(12.0).reshape(4, 3)


class Owner(BaseEstimator):
    """An estimator that learns its features."""


@pytest.mark.parametrize(
    "container",
    [
        X,
        X.astype(np.float32),
        X.astype(np.int8),
        X.tolist(),
        np.asfortranarray(X),
        pd.DataFrame(X, columns=list("abc")),
        sparse.csr_array(X),
        sparse.coo_array(X),
        sparse.dia_matrix(X),
    ],
    ids=lambda container: f"{type(container).__name__}-{getattr(container, 'dtype', '')}",
)
def test_every_container_opens_to_the_same_rows(container):
    samples = open_samples(container)
    assert (samples.n_samples, samples.n_features) == X.shape
    assert samples.dtype in (np.float32, np.float64)
    rows = samples.X
    if sparse.issparse(container):
        assert rows.format == "csr"
        rows = rows.toarray()
    else:
        assert rows.flags.c_contiguous
    np.testing.assert_array_equal(rows, X)
    assert not samples.lazy
    assert samples.first is samples


def test_rows_that_fit_are_not_copied(tmp_path):
    assert np.shares_memory(open_samples(X).X, X)
    np.save(tmp_path / "X.npy", X)
    on_disk = np.load(tmp_path / "X.npy", mmap_mode="r")
    assert np.shares_memory(open_samples(on_disk).X, on_disk)


def test_the_estimator_learns_its_features_once():
    owner = Owner()
    open_samples(pd.DataFrame(X, columns=list("abc")), estimator=owner)
    assert owner.n_features_in_ == 3
    assert owner.feature_names_in_.tolist() == ["a", "b", "c"]
    with pytest.raises(ValueError, match="feature names should match"):
        open_samples(pd.DataFrame(X, columns=list("xyz")), estimator=owner, reset=False)
    with pytest.raises(ValueError, match="feature names should match"):
        open_samples(pd.DataFrame(X[:, :2], columns=list("ab")), estimator=owner, reset=False)


def test_dask_arrays_are_gathered_or_left_lazy():
    da = pytest.importorskip("dask.array")
    array = da.from_array(X, chunks=(2, 2))
    samples = open_samples(array)
    assert samples.gathered == "memory"
    np.testing.assert_array_equal(samples.X, X)
    samples = open_samples(array, estimator=Owner(), lazy=True)
    assert samples.lazy
    assert samples.X.chunks == ((2, 2), (3,))
    np.testing.assert_array_equal(samples.first.X, X[:2])


def test_files_are_opened_with_their_labels(tmp_path):
    frame = pd.DataFrame({"a": [1.0, 2.0], "name": ["x", "y"], "label": ["n", "m"]})
    frame.to_csv(tmp_path / "pool.csv", index=False)
    samples = open_samples(SamplesFile(str(tmp_path / "pool.csv"), labels="label"))
    np.testing.assert_array_equal(samples.X, [[1.0], [2.0]])
    np.testing.assert_array_equal(samples.y, [1, 0])  # codes of the sorted labels
    assert samples.left_out == ("name",)


@pytest.mark.parametrize(
    ("container", "options", "message"),
    [
        (np.ma.array(X, mask=X > 10), {}, "masked array with 1 masked"),
        (X.astype("datetime64[D]"), {}, "must hold numbers"),
        (X * 1e300, {}, "largest entry of G"),
        (np.full((2, 2), np.inf), {}, "contains infinity"),
        (X[0], {}, "Expected 2D array"),
        (sparse.csr_array(X), {"sparse": False}, "Sparse data was passed"),
        (np.empty((0, 3)), {}, "0 sample"),
    ],
    ids=str,
)
def test_what_is_refused_names_the_argument(container, options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        open_samples(container, name="G", **options)


def test_memory_is_judged_before_anything_is_copied(monkeypatch):
    monkeypatch.setattr("sklearn_skmm.data._checks.available_memory", lambda: 2**29)
    open_samples(X, estimator=Owner(), peak_bytes=lambda X: 2**29)
    with pytest.raises(MemoryError, match=r"Owner\(\) would need .* X of shape \(4, 3\)"):
        open_samples(X, estimator=Owner(), peak_bytes=lambda X: 2**29 + 1)


def test_labels_and_strata():
    samples = open_samples(X, ["b", "a", "b", "b"], needs_y=True, stratify=True)
    assert samples.strata.classes.tolist() == ["a", "b"]
    parts = samples.by_stratum()
    assert [part.y.tolist() for part in parts] == [["a"], ["b", "b", "b"]]
    np.testing.assert_array_equal(parts[1].X, X[[0, 2, 3]])
    with pytest.raises(ValueError, match="requires y to be passed"):
        open_samples(X, stratify=True)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        open_samples(X, [0, 1], needs_y=True)
    ordered = samples.strata.in_order_of(np.array(["a", "b", "c"]))
    assert [len(members) for members in ordered.members] == [1, 3, 0]
    with pytest.raises(ValueError, match=r"not seen in fit: \['b'\]"):
        Strata.of(np.array(["a", "b"])).in_order_of(np.array(["a"]))


def test_a_new_kind_of_container_is_one_source(monkeypatch):
    class Ledger:
        """Rows in an order of their own."""

        pages = X[::-1]

    class LedgerSource(Source):
        @staticmethod
        def recognises(X, reader):
            return isinstance(X, Ledger)

        @staticmethod
        def open(X, reader):
            return Samples(X.pages[::-1])

    monkeypatch.setattr(door, "SOURCES", (LedgerSource, *door.SOURCES))
    np.testing.assert_array_equal(open_samples(Ledger()).X, X)
    assert Reader().rows  # what a reader asks for unless it says otherwise
