"""Blocks of a sketch cache and the names of their files."""

import hashlib
import json
import re
import sys

import numpy as np
import pytest

from sklearn_skmm.sketch._cache import SketchCache, digest
from tests.sketch._caches import BLOCK, INPUTS, KEY, blocks, temporaries


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(7, 5), (1, 1), (0, 3)])
@pytest.mark.parametrize("layout", ["C", "F", "strided"])
def test_get_returns_the_bytes_that_were_put(tmp_path, dtype, shape, layout):
    values = np.random.RandomState(0).normal(size=shape).astype(dtype)
    values[:1, :1] = -0.0
    array = (
        np.repeat(values, 2, axis=0)[::2] if layout == "strided" else np.array(values, order=layout)
    )
    cache = SketchCache(tmp_path, KEY)
    assert cache.get(3, INPUTS) is None
    cache.put(3, INPUTS, array)
    for reader in (cache, SketchCache(tmp_path, dict(reversed(KEY.items())))):
        block = reader.get(3, INPUTS)
        assert type(block) is np.ndarray
        assert block.dtype == dtype
        assert block.shape == shape
        assert block.flags.c_contiguous
        assert block.flags.writeable
        assert block.tobytes() == values.tobytes()
    # The name depends only on the values, so processes that write the same block agree.
    cache.put(3, INPUTS, values)
    assert len(blocks(tmp_path)) == 1
    assert not temporaries(tmp_path)


def test_files_can_be_read_and_verified_without_the_package(cache_and_path):
    cache, path = cache_and_path
    index, inputs, content = re.fullmatch(
        r"block-(\d{8})-([0-9a-f]{32})-([0-9a-f]{32})\.npy", path.name
    ).groups()
    assert int(index) == 0
    assert inputs != INPUTS  # it also depends on the key
    assert content == hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
    np.testing.assert_array_equal(np.load(path), BLOCK)
    manifest = json.loads((cache.directory / "manifest.json").read_text())
    assert manifest == {"format": "sklearn_skmm sketch cache", "version": 1, "key": KEY}


def test_file_names_do_not_change_between_releases(cache_and_path):
    # If these names change, raise VERSION, or caches of earlier releases are reported as stale.
    assert digest(BLOCK, "a", b"b", None, True, 1, 0.5) == "a51c9e192e9f881b0cf7d3d175d6aed7"
    assert (
        cache_and_path[1].name
        == "block-00000000-a5d29bce6b52d6782982095f976f5a99-0b793b6c88506ed40d309919deb53ba2.npy"
    )


def test_relative_directory_is_created_and_survives_a_change_of_working_directory(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    cache = SketchCache("a/b/c", KEY)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    cache.put(0, INPUTS, BLOCK)
    assert len(blocks(tmp_path / "a/b/c")) == 1


@pytest.mark.parametrize(
    ("index", "array"),
    [
        (-1, BLOCK),
        (0, BLOCK[0]),
        (0, BLOCK[None]),
        (0, BLOCK.astype(int)),
        (0, BLOCK.astype(np.float16)),
        (0, BLOCK.astype(">f4" if sys.byteorder == "little" else "<f4")),
        (0, BLOCK.tolist()),
    ],
)
def test_put_rejects_arrays_that_are_not_blocks(tmp_path, index, array):
    with pytest.raises(ValueError, match="2-d float32 or float64 array"):
        SketchCache(tmp_path, KEY).put(index, INPUTS, array)
    assert not blocks(tmp_path)


def test_large_indices_do_not_collide(tmp_path):
    cache = SketchCache(tmp_path, KEY)
    for index in (1, 10**8 + 1, 10**9 + 1):
        cache.put(index, INPUTS, np.full((1, 1), float(index)))
    reader = SketchCache(tmp_path, KEY)
    assert [reader.get(i, INPUTS)[0, 0] for i in (1, 10**8 + 1, 10**9 + 1)] == [
        1,
        10**8 + 1,
        10**9 + 1,
    ]
