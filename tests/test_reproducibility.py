"""The same picks everywhere: threads, containers, processes, releases."""

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
from tests.test_numerical_range import VARIANTS

RECORD = Path(__file__).with_name("recorded_indices.json")
N = 12


def problem():
    """A small pool and labels in exact arithmetic, the same with any release of NumPy."""
    i, j = np.meshgrid(np.arange(97), np.arange(5), indexing="ij")
    # Residues of products look random, and are whole numbers.
    X = ((i * i * 7 + i * (j + 2) * 31 + j * 17) % 101 - 50.0) * 2.0 ** -np.arange(5)
    return X, (np.arange(97) * 5 % 97 > 48).astype(int)


X, Y = problem()


def select(variant, rows=X, y=Y, **params):
    cls, own = VARIANTS[variant]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return make(cls, N, **own, **params).fit(rows, y)


@functools.cache
def usual(variant):
    return select(variant).sample_indices_


@pytest.fixture(params=VARIANTS)
def variant(request):
    return request.param


# Threads, containers, pickles


def test_threads(variant):
    picks = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            picks.append(select(variant).sample_indices_)
    np.testing.assert_array_equal(picks[0], picks[1])


def test_containers(variant, tmp_path):
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
        picks = select(variant, rows).sample_indices_
        np.testing.assert_array_equal(picks, usual(variant), err_msg=name)


def test_labels_may_be_anything_that_sorts_alike(variant):
    expected = select(variant, stratify=True).sample_indices_
    for labels in (pd.Series(Y).astype(bool), np.array(["no", "yes"])[Y].tolist()):
        picks = select(variant, y=labels, stratify=True).sample_indices_
        np.testing.assert_array_equal(picks, expected)


def test_pickles(variant):
    fitted = select(variant)
    restored = pickle.loads(pickle.dumps(fitted))
    assert restored.selection_version_ == fitted.selection_version_
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        np.testing.assert_array_equal(restored.transform(X), usual(variant))
        np.testing.assert_array_equal(restored.fit(X, Y).sample_indices_, usual(variant))
    assert restored.score(X) == fitted.score(X)


def test_the_seed_is_all_that_is_drawn_from(variant):
    """The global state of NumPy neither changes the picks nor is changed."""
    np.random.seed(1)
    before = np.random.get_state()[1].copy()
    np.testing.assert_array_equal(select(variant).sample_indices_, usual(variant))
    np.testing.assert_array_equal(np.random.get_state()[1], before)


CHILD = """
import json, sys
from tests.test_reproducibility import VARIANTS, usual
print(json.dumps({variant: usual(variant).tolist() for variant in VARIANTS}))
"""


@pytest.mark.slow
def test_another_process_with_other_hashes():
    root = str(Path(__file__).parents[1])
    path = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONHASHSEED": "4711", "PYTHONPATH": path}
    out = subprocess.run(
        [sys.executable, "-c", CHILD], env=environment, capture_output=True, text=True, check=True
    )
    assert json.loads(out.stdout) == {v: usual(v).tolist() for v in VARIANTS}


# Ties

# By position, of rows that are equal; the others draw.
ORDERED = [
    "GradNormSelector",
    "HerdingSelector",
    "AdaptiveSelector-greedy",
    "KCenterSelector-center",
    "FacilityLocationSelector",
    "FacilityLocationSelector-euclidean",
    "FacilityLocationSelector-sqeuclidean",
    "UncertaintySelector",
]


@pytest.mark.parametrize("name", ORDERED)
def test_of_equal_rows_the_first_is_taken(name):
    distinct, copies = X[:20], 4
    rows, labels = np.tile(distinct, (copies, 1)), np.tile(Y[:20], copies)
    cls, params = VARIANTS[name]
    picks = make(cls, 30, **params).fit(rows, labels).sample_indices_
    taken = {}
    for pick in picks:
        # The k-th copy of a row is only taken after the one before it.
        assert pick // 20 == taken.get(pick % 20, 0)
        taken[pick % 20] = pick // 20 + 1


@pytest.mark.parametrize("name", [*ORDERED, "VOptimalSelector", "VOptimalSelector-greedy"])
def test_of_rows_that_are_all_equal_the_first_are_taken(name):
    cls, params = VARIANTS[name]
    for rows in (np.ones((9, 2)), np.full((9, 2), 0.1), np.zeros((9, 2))):
        picks = make(cls, 4, **params).fit(rows, np.arange(9) % 2).sample_indices_
        assert sorted(picks) == [0, 1, 2, 3]


# Releases


def recorded():
    return json.loads(RECORD.read_text())


def test_the_record_holds_every_selector():
    assert recorded()["indices"].keys() == VARIANTS.keys()
    assert recorded()["selection_version"] == BaseSelector.selection_version_


def test_the_same_picks_as_recorded(variant):
    expected = recorded()["indices"][variant]
    assert usual(variant).tolist() == expected, (
        f"{variant} selects other samples than before. If that is intended, add one to "
        "BaseSelector.selection_version_, say so in CHANGELOG.md, and record the picks anew: "
        "python -m tests.test_reproducibility"
    )


def test_the_same_sketch_as_recorded():
    for kind, expected in recorded()["sketches"].items():
        sketch = GradientSketcher(3, sketch=kind, random_state=0).fit_transform(X[:2])
        np.testing.assert_allclose(sketch, expected, rtol=1e-12, atol=0, err_msg=kind)


@pytest.mark.parametrize("cls", selector_classes(), ids=lambda cls: cls.__name__)
def test_a_fitted_selector_tells_its_version(cls):
    version = make(cls).selection_version_
    assert type(version) is int
    assert version >= 1


def record():
    """Write what is selected now."""
    sketches = {
        kind: GradientSketcher(3, sketch=kind, random_state=0).fit_transform(X[:2]).tolist()
        for kind in ("gaussian", "sparse_sign")
    }
    record = {
        "selection_version": BaseSelector.selection_version_,
        "indices": {variant: usual(variant).tolist() for variant in VARIANTS},
        "sketches": sketches,
    }
    lines = [f'"selection_version": {record["selection_version"]}']
    for part in ("indices", "sketches"):
        rows = ",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in record[part].items())
        lines.append(f'"{part}": {{\n{rows}\n}}')
    RECORD.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    record()
