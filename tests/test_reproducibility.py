"""The selection does not depend on the threads, the container, the process or the release."""

import functools
import json
import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from sklearn_skmm import GradientSketcher
from sklearn_skmm.base import BaseSelector
from tests._selectors import make, selector_classes
from tests.test_numerical_range import PARAMS, VARIANTS

RECORD = Path(__file__).with_name("recorded_indices.json")
N = 12


def problem():
    """A small pool and labels in exact arithmetic, the same with any release of NumPy."""
    i, j = np.meshgrid(np.arange(97), np.arange(5), indexing="ij")
    # Residues of products look random but are integers.
    X = ((i * i * 7 + i * (j + 2) * 31 + j * 17) % 101 - 50.0) * 2.0 ** -np.arange(5)
    return X, (np.arange(97) * 5 % 97 > 48).astype(int)


X, Y = problem()


def select(variant, rows=X, y=Y, **params):
    cls, own = VARIANTS[variant]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return make(cls, N, **own, **params).fit(rows, y)


@functools.cache
def default_selection(variant):
    return select(variant).sample_indices_


@pytest.fixture(params=PARAMS)
def variant(request):
    return request.param


# Threads, containers, pickles


def test_number_of_threads_does_not_matter(variant):
    selected = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            selected.append(select(variant).sample_indices_)
    np.testing.assert_array_equal(selected[0], selected[1])


def test_container_does_not_matter(variant, tmp_path):
    np.save(tmp_path / "rows.npy", X)
    on_disk = np.load(tmp_path / "rows.npy", mmap_mode="r", allow_pickle=False)
    containers = {
        "Fortran order": np.asfortranarray(X),
        "view": np.repeat(np.repeat(X, 2, axis=0), 2, axis=1)[::2, ::2],
        "list": X.tolist(),
        "frame": pd.DataFrame(X, columns=list("abcde")),
        "memory map": on_disk,
        "CSR": sparse.csr_array(X),
        "integers": None,
    }
    for name, rows in containers.items():
        if name == "integers":
            whole = (X * 16).astype(np.int64)
            expected = select(variant, whole.astype(float)).sample_indices_
            np.testing.assert_array_equal(select(variant, whole).sample_indices_, expected)
            continue
        selected = select(variant, rows).sample_indices_
        np.testing.assert_array_equal(selected, default_selection(variant), err_msg=name)


def test_labels_may_have_any_type_with_the_same_order(variant):
    expected = select(variant, stratify=True).sample_indices_
    for labels in (pd.Series(Y).astype(bool), np.array(["no", "yes"])[Y].tolist()):
        selected = select(variant, y=labels, stratify=True).sample_indices_
        np.testing.assert_array_equal(selected, expected)


def test_pickle_round_trip_keeps_the_selection(variant):
    fitted = select(variant)
    restored = pickle.loads(pickle.dumps(fitted))
    assert restored.selection_version_ == fitted.selection_version_
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        np.testing.assert_array_equal(restored.transform(X), default_selection(variant))
        np.testing.assert_array_equal(
            restored.fit(X, Y).sample_indices_, default_selection(variant)
        )
    assert restored.score(X) == fitted.score(X)


def test_global_random_state_is_neither_used_nor_changed(variant):
    np.random.seed(1)
    before = np.random.get_state()[1].copy()
    np.testing.assert_array_equal(select(variant).sample_indices_, default_selection(variant))
    np.testing.assert_array_equal(np.random.get_state()[1], before)


CHILD = """
import json, sys
from tests.test_reproducibility import VARIANTS, default_selection
print(json.dumps({variant: default_selection(variant).tolist() for variant in VARIANTS}))
"""


@pytest.mark.slow
def test_process_with_another_hash_seed_selects_the_same():
    root = str(Path(__file__).parents[1])
    path = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONHASHSEED": "4711", "PYTHONPATH": path}
    out = subprocess.run(
        [sys.executable, "-c", CHILD], env=environment, capture_output=True, text=True, check=True
    )
    assert json.loads(out.stdout) == {v: default_selection(v).tolist() for v in VARIANTS}


# Ties

# These selectors break ties between equal rows by position, the others at random.
TIES_BY_POSITION = [
    "GradNormSelector",
    "HerdingSelector",
    "AdaptiveSelector-greedy",
    "KCenterSelector-center",
    "FacilityLocationSelector",
    "FacilityLocationSelector-euclidean",
    "FacilityLocationSelector-sqeuclidean",
    "UncertaintySelector",
]


@pytest.mark.parametrize("name", TIES_BY_POSITION)
def test_equal_rows_are_selected_in_order(name):
    distinct, copies = X[:20], 4
    rows, labels = np.tile(distinct, (copies, 1)), np.tile(Y[:20], copies)
    cls, params = VARIANTS[name]
    selected = make(cls, 30, **params).fit(rows, labels).sample_indices_
    n_selected = {}
    for index in selected:
        # The k-th copy of a row is selected only after the one before it.
        assert index // 20 == n_selected.get(index % 20, 0)
        n_selected[index % 20] = index // 20 + 1


@pytest.mark.parametrize("name", [*TIES_BY_POSITION, "VOptimalSelector", "VOptimalSelector-greedy"])
def test_first_rows_are_selected_if_all_are_equal(name):
    cls, params = VARIANTS[name]
    for rows in (np.ones((9, 2)), np.full((9, 2), 0.1), np.zeros((9, 2))):
        selected = make(cls, 4, **params).fit(rows, np.arange(9) % 2).sample_indices_
        assert sorted(selected) == [0, 1, 2, 3]


# Releases


def recorded():
    return json.loads(RECORD.read_text())


def test_record_has_every_selector():
    assert recorded()["indices"].keys() == VARIANTS.keys()
    assert recorded()["selection_version"] == BaseSelector.selection_version_


@pytest.mark.parametrize("variant", VARIANTS)
def test_selection_equals_the_record(variant):
    expected = recorded()["indices"][variant]
    assert default_selection(variant).tolist() == expected, (
        f"{variant} selects other samples than before. If that is intended, add one to "
        "BaseSelector.selection_version_, say so in CHANGELOG.md, and record the selection again: "
        "python -m tests.test_reproducibility"
    )


def test_sketch_equals_the_record():
    for kind, expected in recorded()["sketches"].items():
        sketch = GradientSketcher(3, sketch=kind, random_state=0).fit_transform(X[:2])
        np.testing.assert_allclose(sketch, expected, rtol=1e-12, atol=0, err_msg=kind)


@pytest.mark.parametrize("cls", selector_classes(), ids=lambda cls: cls.__name__)
def test_selector_has_a_selection_version(cls):
    version = make(cls).selection_version_
    assert type(version) is int
    assert version >= 1


def record():
    """Write the current selections and sketches to the record."""
    sketches = {
        kind: GradientSketcher(3, sketch=kind, random_state=0).fit_transform(X[:2]).tolist()
        for kind in ("gaussian", "sparse_sign")
    }
    record = {
        "selection_version": BaseSelector.selection_version_,
        "indices": {variant: default_selection(variant).tolist() for variant in VARIANTS},
        "sketches": sketches,
    }
    lines = [f'"selection_version": {record["selection_version"]}']
    for part in ("indices", "sketches"):
        rows = ",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in record[part].items())
        lines.append(f'"{part}": {{\n{rows}\n}}')
    RECORD.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    record()
