"""Caches with another key or of other data, and directories that are not caches."""

import errno
import os
import shutil
import time

import numpy as np
import pytest

from sklearn_skmm.sketch._cache import SketchCache, digest
from tests.sketch._caches import BLOCK, INPUTS, KEY, snapshot, temporaries


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"m": 4}, ["m is 2 in the cache and 4 in this run"]),
        ({"m": 2.0}, ["m is 2 in the cache and 2.0 in this run"]),
        ({"centred": 1}, ["centred is True in the cache and 1 in this run"]),
        ({"layers": "None"}, ["layers is None in the cache and 'None' in this run"]),
        (
            {"loss": "sum", "seed": 7},
            ["loss is 'mean' in the cache and 'sum' in this run", "seed is 0 in the cache and 7"],
        ),
        ({"new": "x"}, ["new is absent in the cache and 'x' in this run"]),
        ({"scale": float("nan")}, ["scale is 0.5 in the cache and nan in this run"]),
    ],
)
def test_cache_with_another_key_is_rejected(cache_and_path, change, told):
    cache, _ = cache_and_path
    old = cache.directory / "tmp-1-0123456789abcdef.partial"
    old.touch()
    os.utime(old, (0, 0))
    before = snapshot(cache.directory)
    with pytest.raises(ValueError, match="is stale") as caught:
        SketchCache(cache.directory, KEY | change)
    message = str(caught.value)
    for part in [*told, f"cache_dir={str(cache.directory)!r}", "Choose another", "delete that"]:
        assert part in message
    assert [name for name in KEY if f"{name} is" in message] == [n for n in KEY if n in change]
    assert snapshot(cache.directory) == before


def test_missing_key_field_is_rejected(cache_and_path):
    with pytest.raises(ValueError, match="seed is 0 in the cache and absent in this run"):
        SketchCache(cache_and_path[0].directory, {k: v for k, v in KEY.items() if k != "seed"})


def test_unusual_scalars_in_a_key_match_themselves(tmp_path):
    key = {
        "nan": float("nan"),
        "inf": float("-inf"),
        "tenth": 0.1,
        "large": 2**200,
        "text": 'Γ\ud800"\n\\',
        "numpy": np.float64(1e-320),
        "Γ": None,
    }
    SketchCache(tmp_path, key).put(0, INPUTS, BLOCK)
    assert SketchCache(tmp_path, key).get(0, INPUTS) is not None


@pytest.mark.parametrize("key", [{"layers": [1]}, {"m": np.int64(2)}, {1: 2}, {"a": {"b": 1}}])
def test_key_must_be_flat(tmp_path, key):
    with pytest.raises(TypeError, match="'key' parameter of SketchCache must map"):
        SketchCache(tmp_path / "cache", key)
    assert not (tmp_path / "cache").exists()


def test_key_too_large_to_read_back_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="too large"):
        SketchCache(tmp_path, {"text": "a" * 2**20})
    assert not snapshot(tmp_path)


def test_blocks_of_other_data_are_rejected(cache_and_path):
    cache, _ = cache_and_path
    before = snapshot(cache.directory)
    reader = SketchCache(cache.directory, KEY)
    for use in (lambda: reader.get(0, digest("other")), lambda: reader.put(0, "other", BLOCK)):
        with pytest.raises(ValueError, match="is stale: its block 0 was made from other data") as e:
            use()
        assert f"cache_dir={str(cache.directory)!r}" in str(e.value)
        assert "delete that one" in str(e.value)
    assert snapshot(cache.directory) == before
    assert reader.get(0, INPUTS) is not None


def test_other_data_written_by_a_concurrent_process_are_rejected(tmp_path):
    one, two = SketchCache(tmp_path, KEY), SketchCache(tmp_path, KEY)
    one.put(0, INPUTS, BLOCK)
    with pytest.raises(ValueError, match="other data"):
        two.get(0, digest("other"))
    assert two.get(0, INPUTS) is not None


def test_block_copied_from_another_cache_is_rejected(cache_and_path, tmp_path):
    other = SketchCache(tmp_path / "other", KEY | {"seed": 1})
    shutil.copy(cache_and_path[1], other.directory)
    with pytest.raises(ValueError, match="other data"):
        other.get(0, INPUTS)


def test_put_does_not_write_into_a_directory_that_another_run_recreated(cache_and_path):
    cache, _ = cache_and_path
    shutil.rmtree(cache.directory)
    with pytest.raises(FileNotFoundError, match="could not write block 1"):
        cache.put(1, INPUTS, BLOCK)
    SketchCache(cache.directory, KEY | {"seed": 1})
    before = snapshot(cache.directory)
    with pytest.raises(ValueError, match="seed is 1 in the cache and 0 in this run"):
        cache.put(1, INPUTS, BLOCK)
    assert snapshot(cache.directory) == before


@pytest.mark.parametrize("name", ["notes.txt", ".hidden", "sub/x", "tmp-1-x.partial", "block"])
def test_directory_with_other_files_is_rejected(cache_and_path, tmp_path, name):
    directory = tmp_path / "home"
    path = directory / (cache_and_path[1].name if name == "block" else name)
    path.parent.mkdir(parents=True)
    shutil.copy(cache_and_path[1], path)
    before = snapshot(directory)
    with pytest.raises(ValueError, match="is not a sketch cache") as caught:
        SketchCache(directory, KEY)
    assert "delete" not in str(caught.value)
    assert snapshot(directory) == before


def test_file_in_place_of_the_directory_is_rejected(tmp_path):
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file", tmp_path / "file" / "cache"):
        with pytest.raises(OSError, match="could not open the cache") as caught:
            SketchCache(path, KEY)
        assert caught.value.errno in (errno.EEXIST, errno.ENOTDIR)
        assert f"cache_dir={str(path)!r}" in str(caught.value)
    assert (tmp_path / "file").read_text() == "mine"


def test_unrelated_files_in_a_cache_are_kept(cache_and_path):
    cache, _ = cache_and_path
    (cache.directory / "README.md").write_text("mine")
    (cache.directory / "block-0.npy").write_text("mine")
    assert SketchCache(cache.directory, KEY).get(0, INPUTS) is not None
    assert (cache.directory / "README.md").read_text() == "mine"


def test_only_old_temporary_files_are_removed(cache_and_path):
    cache, _ = cache_and_path
    names = {
        "tmp-12-0123456789abcdef.partial": 7200,
        "tmp-13-0123456789abcdef.partial": 60,
        "tmp-14-0123456789abcdeg.partial": 7200,
        "tmp-notes.partial": 7200,
    }
    for name, age in names.items():
        (cache.directory / name).write_text("x")
        os.utime(cache.directory / name, (time.time() - age,) * 2)
    SketchCache(cache.directory, KEY)
    assert {path.name for path in temporaries(cache.directory)} == set(list(names)[1:])


def test_temporary_files_without_a_manifest_are_no_obstacle(tmp_path):
    (tmp_path / "tmp-12-0123456789abcdef.partial").write_text("x")
    SketchCache(tmp_path, KEY).put(0, INPUTS, BLOCK)
    assert SketchCache(tmp_path, KEY).get(0, INPUTS) is not None
