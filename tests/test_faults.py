"""After a kill, an interrupt, a full disk or a damaged file, a retry gives the same result.

`python -m tests.faults` checks this at many more moments and places.
"""

import gc
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

from sklearn_skmm import SkMMSelector
from sklearn_skmm.cli._main import main
from sklearn_skmm.data import _dask
from sklearn_skmm.sketch import _cache
from sklearn_skmm.sketch._cache import SketchCache, digest
from sklearn_skmm.sketch._torch import _cached_sketch

if not hasattr(os, "fork"):
    pytest.skip("needs fork and signals", allow_module_level=True)

from tests import faults


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(_cached_sketch, "CACHED_ROWS", faults.ROWS)


@pytest.mark.parametrize(
    ("fault", "runs"),
    [
        (faults.flips, 40),
        (faults.interrupts_of_sketches, 10),
        (faults.interrupts_of_selectors, 4),
        (faults.interrupts_of_commands, 20),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
@pytest.mark.slow
def test_retry_after_faults_in_this_process(fault, runs, tmp_path):
    fault(tmp_path, runs, np.random.default_rng(0))


@pytest.mark.slow
def test_retry_after_faults_in_other_processes():
    """The process that is killed or runs out of a resource is a fork."""
    names = ["shortages", "kills", "commands", "quotas"]
    argv = [sys.executable, "-W", "error", "-m", "tests.faults", *names, "--runs", "5"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == names


def test_header_with_a_huge_shape_allocates_no_memory(tmp_path):
    """NumPy would allocate the array that the header describes before it reads any values."""
    cache = SketchCache(tmp_path, {"m": 2})
    cache.put(0, digest("x"), np.ones((3, 2)))
    (path,) = tmp_path.glob("block-*")
    file = io.BytesIO()
    header = {"descr": "<f8", "fortran_order": False, "shape": (2**40, 2)}
    np.lib.format.write_array_header_1_0(file, header)
    forged = file.getvalue() + bytes(48)
    name = f"{path.name[:48]}{hashlib.blake2b(forged, digest_size=16).hexdigest()}.npy"
    assert _cache.BLOCK.fullmatch(name)
    path.unlink()
    (tmp_path / name).write_bytes(forged)
    tracemalloc.start()
    with pytest.warns(UserWarning, match="damaged"):
        assert SketchCache(tmp_path, {"m": 2}).get(0, digest("x")) is None
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


# A separate file system


def mount(*args):
    return subprocess.run(["mount", *args], capture_output=True, text=True, check=False)


@pytest.fixture
def disk(tmp_path):
    """Return a file system of one mebibyte."""
    if shutil.which("mount") is None:
        pytest.skip("needs mount")
    folder = tmp_path / "disk"
    folder.mkdir()
    done = mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder))
    if done.returncode:
        pytest.skip(f"needs the permission to mount: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill(disk):
    with (
        open(disk / "filler", "wb", buffering=0) as file,
        pytest.raises(OSError, match="No space left"),
    ):
        all(file.write(bytes(4096)) for _ in range(1000))


@pytest.mark.slow
def test_cache_on_a_full_and_on_a_read_only_disk(disk, tmp_path):
    expected, files = faults.sketch(tmp_path / "whole", 60), faults.content(tmp_path / "whole")
    directory = disk / "cache"
    faults.sketch(directory, 30)
    fill(disk)
    before = faults.content(directory)
    with pytest.raises(OSError, match=r"cache_dir=.*could not write block 3: No space left"):
        faults.sketch(directory, 60)
    assert faults.content(directory) == before
    assert not list(directory.glob("tmp-*"))
    assert mount("-o", "remount,ro", str(disk)).returncode == 0
    with pytest.raises(OSError, match=r"cache_dir=.*could not write block 3: Read-only"):
        faults.sketch(directory, 60)
    assert faults.sketch(directory, 30).tobytes() == expected[:30].tobytes()
    assert mount("-o", "remount,rw,size=4m", str(disk)).returncode == 0
    assert faults.sketch(directory, 60).tobytes() == expected.tobytes()
    assert faults.content(directory) == files


@pytest.mark.parametrize("name", ["picks.csv", "picks.npy"])
def test_command_line_on_a_full_disk(disk, capsys, name):
    argv, files = faults.targets(disk, name)
    fill(disk)
    assert main(argv) == 1
    assert "No space left" in capsys.readouterr().err
    assert {path.name for path in disk.iterdir()} == {"pool.npy", "filler"}
    (disk / "filler").unlink()
    assert main(argv) == 0
    assert all(path.stat().st_size for path in files)


@pytest.mark.slow
def test_dask_array_on_a_disk_that_fills_up(disk, monkeypatch):
    """There is enough space when it is checked, but not for the second chunk."""
    dask = pytest.importorskip("dask", reason="Dask is an extra")
    da = pytest.importorskip("dask.array", reason="Dask is an extra")
    whole = np.random.RandomState(0).normal(size=(2000, 40))

    def fill_at_the_second_chunk(block, block_info):
        if block_info[0]["chunk-location"] == (1, 0):
            fill(disk)
        return block

    X = da.from_array(whole, chunks=(1000, 40))
    filling = X.map_blocks(fill_at_the_second_chunk, dtype=float, meta=whole[:0])
    selector = SkMMSelector(5, random_state=0)
    monkeypatch.setattr(_dask, "available_memory", lambda: 0)
    monkeypatch.setattr(_dask, "PART", 1)  # one chunk at a time
    with dask.config.set(temporary_directory=str(disk)):
        with pytest.raises(OSError, match=rf"'{disk}': No space left"):
            selector.fit(filling)
        assert [path.name for path in disk.iterdir()] == ["filler"]
        assert not [name for name in vars(selector) if name.endswith("_")]
        (disk / "filler").unlink()
        np.testing.assert_array_equal(selector.fit_transform(X), selector.fit_transform(whole))
    gc.collect()
    assert shutil.disk_usage(disk).free == shutil.disk_usage(disk).total
