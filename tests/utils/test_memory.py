"""Available memory of the machine and of its container."""

import os

from sklearn_skmm.utils import _memory


def test_available_memory(monkeypatch, tmp_path):
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 2**20 < _memory.available_memory() <= total

    def absent(*args):
        raise FileNotFoundError

    monkeypatch.setattr("builtins.open", absent)
    monkeypatch.setattr(_memory, "_container_memory", lambda: None)
    assert _memory.available_memory() == total
    monkeypatch.setattr(_memory, "_container_memory", lambda: 5)
    assert _memory.available_memory() == 5
    monkeypatch.delattr(os, "sysconf")
    assert _memory.available_memory() == 5
    monkeypatch.setattr(_memory, "_container_memory", lambda: None)
    assert _memory.available_memory() is None


def test_container_memory(tmp_path):
    assert _memory._container_memory(tmp_path / "absent") is None
    (tmp_path / "memory.max").write_text("max\n")
    assert _memory._container_memory(tmp_path) is None
    (tmp_path / "memory.max").write_text("1000\n")
    assert _memory._container_memory(tmp_path) is None  # the usage files are missing
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 600\ninactive_file 60\nactive_file 40\n")
    assert _memory._container_memory(tmp_path) == 400
    (tmp_path / "memory.current").write_text("1200\n")
    assert _memory._container_memory(tmp_path) == 0
