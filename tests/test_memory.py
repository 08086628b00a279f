"""What would not fit is refused before memory is asked for.

How much each selector holds is measured by `examples/benchmarks/memory.py`.
"""

import os

import numpy as np
import pytest

from sklearn_skmm import KCenterSelector, UniformSelector, _memory


def test_available_memory(monkeypatch, tmp_path):
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 2**20 < _memory.available_memory() <= total

    def absent(*args):
        raise FileNotFoundError

    monkeypatch.setattr("builtins.open", absent)
    monkeypatch.setattr(_memory, "_of_container", lambda: None)
    assert _memory.available_memory() == total
    monkeypatch.setattr(_memory, "_of_container", lambda: 5)
    assert _memory.available_memory() == 5
    monkeypatch.delattr(os, "sysconf")
    assert _memory.available_memory() == 5
    monkeypatch.setattr(_memory, "_of_container", lambda: None)
    assert _memory.available_memory() is None


def test_limit_of_a_container(tmp_path):
    assert _memory._of_container(tmp_path / "absent") is None
    (tmp_path / "memory.max").write_text("max\n")
    assert _memory._of_container(tmp_path) is None
    (tmp_path / "memory.max").write_text("1000\n")
    assert _memory._of_container(tmp_path) is None  # half of the interface
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 600\ninactive_file 60\nactive_file 40\n")
    assert _memory._of_container(tmp_path) == 400
    (tmp_path / "memory.current").write_text("1200\n")
    assert _memory._of_container(tmp_path) == 0


def test_what_does_not_fit_is_refused_and_nothing_changes(monkeypatch):
    X = np.random.RandomState(0).normal(size=(50, 4))
    one = X.nbytes
    monkeypatch.setattr(_memory, "SMALL", 1)
    selector = KCenterSelector(5, random_state=0).fit(X)
    before = dict(vars(selector))
    monkeypatch.setattr(_memory, "available_memory", lambda: int(1.1 * one) - 1)
    for call in (selector.fit, selector.transform, selector.score):
        with pytest.raises(MemoryError, match=r"KCenterSelector.*X of shape \(50, 4\)"):
            call(X)
        assert vars(selector) == before
    monkeypatch.setattr(_memory, "available_memory", lambda: int(1.1 * one) + 1)
    selector.fit(X)
    with pytest.raises(MemoryError):  # single precision is taken to double, a copy more
        selector.fit(X.astype(np.float32))
    UniformSelector(5).fit(X)
    monkeypatch.setattr(_memory, "available_memory", lambda: None)
    selector.fit(X)
