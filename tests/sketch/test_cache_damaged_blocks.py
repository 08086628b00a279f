"""Damaged block files are not used, and no code in them is run."""

import ast
import hashlib
import inspect
import io
import sys
import zipfile

import numpy as np
import pytest

from sklearn_skmm.sketch import _cache
from sklearn_skmm.sketch._cache import SketchCache
from tests.sketch._caches import BLOCK, INPUTS, KEY, blocks


def damages(content):
    for length in range(len(content)):
        yield content[:length]
    for bit in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        yield bytes(flipped)
    yield content + b"\0"
    yield content * 2
    yield bytes(len(content))


def test_no_damaged_block_is_used(cache_and_path):
    cache, path = cache_and_path
    content = path.read_bytes()
    count = 0
    for damaged in damages(content):
        path.write_bytes(damaged)
        with pytest.warns(UserWarning, match=f"{path.name} is damaged") as caught:
            assert cache.get(0, INPUTS) is None
        assert caught[0].filename == __file__
        count += 1
    assert count == len(content) * 9 + 3
    assert path.read_bytes() == damaged  # reading does not write
    cache.put(0, INPUTS, BLOCK)
    assert blocks(cache.directory) == {path.name: content}
    np.testing.assert_array_equal(cache.get(0, INPUTS), BLOCK)


def test_put_removes_the_damaged_file_if_the_new_block_differs(cache_and_path):
    cache, path = cache_and_path
    path.write_bytes(b"")
    with pytest.warns(UserWarning, match="damaged"):
        cache.get(0, INPUTS)
    cache.put(0, INPUTS, BLOCK + 1)
    assert not path.exists()
    for reader in (cache, SketchCache(cache.directory, KEY)):
        np.testing.assert_array_equal(reader.get(0, INPUTS), BLOCK + 1)


def test_intact_block_is_found_beside_a_damaged_one(tmp_path):
    for change in (1, 2, 3):
        SketchCache(tmp_path, KEY).put(0, INPUTS, BLOCK + change)
    first, second, third = sorted(tmp_path.glob("block-*"))
    first.write_bytes(b"")
    with pytest.warns(UserWarning, match=first.name) as caught:
        block = SketchCache(tmp_path, KEY).get(0, INPUTS)
    assert len(caught) == 1
    np.testing.assert_array_equal(block, np.load(second))
    assert third.exists()


def fail():
    raise AssertionError("code in a file was run")


class Malicious:
    def __reduce__(self):
        return fail, ()


def saved(array):
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def rewrite(path, content):
    """Replace a block file by one of other content, named by the digest of that content."""
    path.unlink()
    name = f"{path.name[:48]}{hashlib.blake2b(content, digest_size=16).hexdigest()}.npy"
    assert _cache.BLOCK.fullmatch(name)
    (path.parent / name).write_bytes(content)


def zipped():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("a.npy", saved(BLOCK))
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY",
        saved(np.array([[Malicious()]])),
        zipped(),
        saved(BLOCK.astype(int)),
        saved(BLOCK[0]),
        saved(BLOCK.astype(">f4" if sys.byteorder == "little" else "<f4")),
    ],
    ids=["empty", "header", "objects", "zip", "integers", "1-d", "byte order"],
)
def test_file_with_a_matching_digest_that_is_not_a_block_is_not_used(cache_and_path, content):
    cache, path = cache_and_path
    rewrite(path, content)
    with pytest.warns(UserWarning, match="damaged"):
        assert SketchCache(cache.directory, KEY).get(0, INPUTS) is None


def test_fortran_ordered_file_is_returned_c_contiguous(cache_and_path):
    cache, path = cache_and_path
    rewrite(path, saved(np.asfortranarray(BLOCK)))
    block = SketchCache(cache.directory, KEY).get(0, INPUTS)
    assert block.flags.c_contiguous
    np.testing.assert_array_equal(block, BLOCK)


def test_deleted_block_can_be_put_again(cache_and_path):
    cache, path = cache_and_path
    path.unlink()
    assert cache.get(0, INPUTS) is None
    cache.put(0, INPUTS, BLOCK)
    assert cache.get(0, INPUTS) is not None


def test_cache_module_cannot_execute_what_it_reads():
    tree = ast.parse(inspect.getsource(_cache))
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
        )
    }
    assert imported <= set(sys.stdlib_module_names) | {"numpy"}
    assert not imported & {"pickle", "marshal", "shelve", "dill", "joblib", "torch", "subprocess"}
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert not names & {"eval", "exec", "compile", "__import__"}
    calls = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("np.load", "np.save")
    ]
    assert len(calls) == 2
    for call in calls:
        arguments = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        assert arguments["allow_pickle"] == "False"
