"""Blocks of a sketch on disk: stale, damaged, killed, full, shared."""

import ast
import errno
import functools
import hashlib
import inspect
import io
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sklearn_skmm.sketch import _cache
from sklearn_skmm.sketch._cache import SketchCache, digest

KEY = {"m": 2, "seed": 0, "loss": "mean", "scale": 0.5, "centred": True, "layers": None}
INPUTS = digest("inputs")
BLOCK = np.arange(6, dtype=np.float32).reshape(3, 2)
POSIX = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and signals")


def snapshot(directory):
    """Everything about a directory that a refusal must leave alone."""
    paths = sorted(Path(directory).rglob("*"))
    return {
        str(path): (path.lstat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
        for path in paths
    }


def blocks(directory):
    return {path.name: path.read_bytes() for path in Path(directory).glob("block-*")}


def temporaries(directory):
    return list(Path(directory).glob("tmp-*"))


@pytest.fixture
def full(tmp_path):
    """A cache with one block, and the file of that block."""
    cache = SketchCache(tmp_path / "cache", KEY)
    cache.put(0, INPUTS, BLOCK)
    (path,) = cache.directory.glob("block-*")
    return cache, path


# Values and names


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(7, 5), (1, 1), (0, 3)])
@pytest.mark.parametrize("layout", ["C", "F", "strided"])
def test_a_block_comes_back_with_equal_bytes(tmp_path, dtype, shape, layout):
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
    # The same values are the same file, so that processes that write it agree.
    cache.put(3, INPUTS, values)
    assert len(blocks(tmp_path)) == 1
    assert not temporaries(tmp_path)


def test_files_can_be_read_and_verified_without_the_package(full):
    cache, path = full
    index, inputs, content = re.fullmatch(
        r"block-(\d{8})-([0-9a-f]{32})-([0-9a-f]{32})\.npy", path.name
    ).groups()
    assert int(index) == 0
    assert inputs != INPUTS  # the key is in it
    assert content == hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
    np.testing.assert_array_equal(np.load(path), BLOCK)
    manifest = json.loads((cache.directory / "manifest.json").read_text())
    assert manifest == {"format": "sklearn_skmm sketch cache", "version": 1, "key": KEY}


def test_names_of_files_stay_the_same_between_releases(full):
    # Who changes these raises VERSION, or caches of earlier releases are called stale.
    assert digest(BLOCK, "a", b"b", None, True, 1, 0.5) == "a51c9e192e9f881b0cf7d3d175d6aed7"
    assert (
        full[1].name
        == "block-00000000-a5d29bce6b52d6782982095f976f5a99-0b793b6c88506ed40d309919deb53ba2.npy"
    )


def test_the_directory_is_made_with_its_parents_and_stays_when_the_process_moves(
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
def test_what_is_not_a_block_is_not_put(tmp_path, index, array):
    with pytest.raises(ValueError, match="2-d float32 or float64 array"):
        SketchCache(tmp_path, KEY).put(index, INPUTS, array)
    assert not blocks(tmp_path)


def test_large_indices_do_not_meet(tmp_path):
    cache = SketchCache(tmp_path, KEY)
    for index in (1, 10**8 + 1, 10**9 + 1):
        cache.put(index, INPUTS, np.full((1, 1), float(index)))
    reader = SketchCache(tmp_path, KEY)
    assert [reader.get(i, INPUTS)[0, 0] for i in (1, 10**8 + 1, 10**9 + 1)] == [
        1,
        10**8 + 1,
        10**9 + 1,
    ]


# Digests


def test_digest_ignores_layout_only():
    values = np.random.RandomState(0).normal(size=(4, 6))
    same = [
        values,
        np.asfortranarray(values),
        np.repeat(values, 2, axis=1)[:, ::2],
        values.astype(">f8"),
        values.astype("<f8"),
    ]
    assert len({digest(array) for array in same}) == 1


def test_digest_tells_inputs_apart():
    zero = np.zeros((2, 3), dtype=np.float32)
    different = [
        (),
        (None,),
        ("None",),
        (b"None",),
        (True,),
        (1,),
        (1.0,),
        ("1",),
        (0.0,),
        (-0.0,),
        ("ab", "c"),
        ("a", "bc"),
        ("abc",),
        # Without lengths or types in front, these would be one text.
        ("a", "b"),
        ("astr\nb",),
        ("str 1\nastr 1\nb",),
        (zero,),
        (zero.T,),
        (zero.ravel(),),
        (zero.astype(np.int32),),
        (zero.astype(np.float64)[:, :1],),
        (-zero,),
        (zero[:1], zero[:1]),
        (zero.tobytes(),),
        (zero[:0],),
        (zero[:, :0],),
        (np.zeros(()),),
        (np.zeros(1),),
        (np.array(["a", "b"]),),
        (np.array([b"a", b"b"]),),
        (np.array(["NaT"], dtype="M8[s]"),),
        (np.array(["NaT"], dtype="M8[ms]"),),
        ("\ud800",),
    ]
    assert len({digest(*parts) for parts in different}) == len(different)


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_digest_sees_every_bit(data):
    array = np.random.RandomState(0).bytes(64)
    bit = data.draw(st.integers(0, 8 * 64 - 1))
    flipped = bytearray(array)
    flipped[bit // 8] ^= 1 << bit % 8
    before, after = (np.frombuffer(b, dtype=np.int64).reshape(2, 4) for b in (array, flipped))
    assert digest(before) != digest(after)
    assert digest(array) != digest(bytes(flipped))


@pytest.mark.parametrize(
    "part",
    [
        [1, 2],
        {"a": 1},
        np.array([None]),
        np.zeros(2, dtype=np.longdouble),
        np.zeros(2, dtype=[("a", int)]),
        np.array(["a"], dtype=np.dtypes.StringDType()),
        1j,
    ],
    ids=str,
)
def test_digest_refuses_what_has_no_canonical_bytes(part):
    with pytest.raises(TypeError, match=r"canonical|Cannot digest"):
        digest(part)


# Stale caches


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
def test_another_key_is_refused(full, change, told):
    cache, _ = full
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


def test_a_field_that_is_gone_is_refused(full):
    with pytest.raises(ValueError, match="seed is 0 in the cache and absent in this run"):
        SketchCache(full[0].directory, {k: v for k, v in KEY.items() if k != "seed"})


def test_every_scalar_equals_itself(tmp_path):
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
def test_a_key_is_flat(tmp_path, key):
    with pytest.raises(TypeError, match="'key' parameter of SketchCache must map"):
        SketchCache(tmp_path / "cache", key)
    assert not (tmp_path / "cache").exists()


def test_a_key_that_could_not_be_read_again_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="too large"):
        SketchCache(tmp_path, {"text": "a" * 2**20})
    assert not snapshot(tmp_path)


def test_other_data_are_refused(full):
    cache, _ = full
    before = snapshot(cache.directory)
    reader = SketchCache(cache.directory, KEY)
    for use in (lambda: reader.get(0, digest("other")), lambda: reader.put(0, "other", BLOCK)):
        with pytest.raises(ValueError, match="is stale: its block 0 was made from other data") as e:
            use()
        assert f"cache_dir={str(cache.directory)!r}" in str(e.value)
        assert "delete that one" in str(e.value)
    assert snapshot(cache.directory) == before
    assert reader.get(0, INPUTS) is not None


def test_other_data_of_a_process_beside_are_refused(tmp_path):
    one, two = SketchCache(tmp_path, KEY), SketchCache(tmp_path, KEY)
    one.put(0, INPUTS, BLOCK)
    with pytest.raises(ValueError, match="other data"):
        two.get(0, digest("other"))
    assert two.get(0, INPUTS) is not None


def test_a_block_that_strays_into_another_cache_is_refused(full, tmp_path):
    other = SketchCache(tmp_path / "other", KEY | {"seed": 1})
    shutil.copy(full[1], other.directory)
    with pytest.raises(ValueError, match="other data"):
        other.get(0, INPUTS)


def test_a_run_whose_directory_was_made_anew_by_another_does_not_write_into_it(full):
    cache, _ = full
    shutil.rmtree(cache.directory)
    with pytest.raises(FileNotFoundError, match="could not write block 1"):
        cache.put(1, INPUTS, BLOCK)
    SketchCache(cache.directory, KEY | {"seed": 1})
    before = snapshot(cache.directory)
    with pytest.raises(ValueError, match="seed is 1 in the cache and 0 in this run"):
        cache.put(1, INPUTS, BLOCK)
    assert snapshot(cache.directory) == before


# Other directories


@pytest.mark.parametrize("name", ["notes.txt", ".hidden", "sub/x", "tmp-1-x.partial", "block"])
def test_a_directory_of_other_files_is_refused(full, tmp_path, name):
    directory = tmp_path / "home"
    path = directory / (full[1].name if name == "block" else name)
    path.parent.mkdir(parents=True)
    shutil.copy(full[1], path)
    before = snapshot(directory)
    with pytest.raises(ValueError, match="is not a sketch cache") as caught:
        SketchCache(directory, KEY)
    assert "delete" not in str(caught.value)
    assert snapshot(directory) == before


def test_a_file_is_no_directory(tmp_path):
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file", tmp_path / "file" / "cache"):
        with pytest.raises(OSError, match="could not open the cache") as caught:
            SketchCache(path, KEY)
        assert caught.value.errno in (errno.EEXIST, errno.ENOTDIR)
        assert f"cache_dir={str(path)!r}" in str(caught.value)
    assert (tmp_path / "file").read_text() == "mine"


def test_files_of_others_beside_the_manifest_are_left(full):
    cache, _ = full
    (cache.directory / "README.md").write_text("mine")
    (cache.directory / "block-0.npy").write_text("mine")
    assert SketchCache(cache.directory, KEY).get(0, INPUTS) is not None
    assert (cache.directory / "README.md").read_text() == "mine"


def test_only_temporaries_of_dead_runs_are_removed(full):
    cache, _ = full
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


def test_temporaries_of_a_run_that_died_before_its_manifest_do_not_matter(tmp_path):
    (tmp_path / "tmp-12-0123456789abcdef.partial").write_text("x")
    SketchCache(tmp_path, KEY).put(0, INPUTS, BLOCK)
    assert SketchCache(tmp_path, KEY).get(0, INPUTS) is not None


# Links and other special files


@POSIX
def test_links_are_refused(full, tmp_path):
    cache, path = full
    for victim in (path, cache.directory / "manifest.json"):
        target = tmp_path / victim.name
        os.rename(victim, target)
        victim.symlink_to(target)
        before = target.read_bytes()
        with pytest.raises(ValueError, match=f"has {victim.name}, which is not a regular file"):
            SketchCache(cache.directory, KEY)
        with pytest.raises(ValueError, match="not a regular file"):
            cache.put(1, INPUTS, BLOCK) if "manifest" in victim.name else cache.get(0, INPUTS)
        assert target.read_bytes() == before
        victim.unlink()
        os.rename(target, victim)
    assert SketchCache(cache.directory, KEY).get(0, INPUTS) is not None


@POSIX
def test_a_link_that_appears_later_is_refused(full, tmp_path):
    path = full[1]
    fresh = SketchCache(tmp_path / "fresh", KEY)
    (fresh.directory / path.name).symlink_to(path)
    with pytest.raises(ValueError, match="not a regular file"):
        fresh.get(0, INPUTS)


@POSIX
def test_a_link_that_appears_after_the_check_is_not_followed(full, tmp_path, monkeypatch):
    cache, path = full
    target = tmp_path / "target"
    os.rename(path, target)
    path.symlink_to(target)
    monkeypatch.setattr(os, "lstat", os.stat)  # the check sees the regular file that was there
    with pytest.raises(OSError, match="could not read block 0") as caught:
        cache.get(0, INPUTS)
    assert caught.value.errno == errno.ELOOP


@POSIX
def test_a_pipe_that_appears_after_the_check_is_not_waited_for(full, monkeypatch):
    cache, path = full
    status = path.stat()
    path.unlink()
    os.mkfifo(path)

    def late(*args):
        raise TimeoutError("waited for a writer")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(5)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(os, "lstat", lambda path: status)
            with pytest.warns(UserWarning, match="damaged"):
                assert cache.get(0, INPUTS) is None
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@POSIX
@pytest.mark.parametrize("make", [os.mkdir, getattr(os, "mkfifo", None)], ids=["folder", "pipe"])
def test_special_files_are_refused_without_waiting(full, make):
    cache, path = full
    for victim in (path, cache.directory / "manifest.json"):
        victim.unlink()
        make(victim)
        with pytest.raises(ValueError, match="not a regular file"):
            SketchCache(cache.directory, KEY)


@POSIX
def test_the_directory_may_be_a_link(full, tmp_path):
    (tmp_path / "link").symlink_to(full[0].directory)
    assert SketchCache(tmp_path / "link", KEY).get(0, INPUTS) is not None


# Manifests


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"9" * 5000, "not valid JSON"),
        (b"[]", "not the manifest"),
        (b"null", "not the manifest"),
        (b'{"name": "app", "version": 1}', "not the manifest"),
        ({"version": 2}, "format version is 2"),
        ({"version": True}, "format version is True"),
        ({"version": 1.0}, "format version is missing"),
        ({"version": [1]}, "format version is missing"),
        ({"blocks": ["../outside.npy"]}, "it has 'blocks', which no manifest"),
        ({"key": [1]}, "not a flat dict"),
        ({"key": None}, "not a flat dict"),
        ({"key": {"m": {}}}, "not a flat dict"),
        (b" " * (2**20 + 1), "1048577 bytes"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_manifest_that_cannot_be_used_is_refused(full, content, reason):
    cache, _ = full
    path = cache.directory / "manifest.json"
    if isinstance(content, dict):
        content = json.dumps(json.loads(path.read_text()) | content).encode()
    path.write_bytes(content)
    before = snapshot(cache.directory)
    with pytest.raises(ValueError, match=reason) as caught:
        SketchCache(cache.directory, KEY)
    assert f"cache_dir={str(cache.directory)!r}" in str(caught.value)
    assert "Choose another directory" in str(caught.value)
    assert snapshot(cache.directory) == before


def test_a_truncated_manifest_is_refused_at_every_length(full):
    cache, _ = full
    path = cache.directory / "manifest.json"
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match="not valid JSON"):
            SketchCache(cache.directory, KEY)
        assert path.read_bytes() == content[:length]


SCALARS = (
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.sampled_from(["mean", "x"])
)
JSON = st.recursive(
    SCALARS, lambda s: st.lists(s, max_size=3) | st.dictionaries(st.text(max_size=3), s, max_size=3)
)
VALID = {"format": _cache.FORMAT, "version": _cache.VERSION, "key": KEY}


@st.composite
def manifests(draw):
    """Anything, and what is close to a manifest: fields replaced, bytes removed and changed."""
    manifest = VALID | draw(st.dictionaries(st.sampled_from([*VALID, "x"]), JSON, max_size=1))
    if isinstance(manifest["key"], dict) and draw(st.booleans()):
        changes = draw(st.dictionaries(st.sampled_from([*KEY, "x"]), SCALARS, max_size=2))
        manifest = manifest | {"key": manifest["key"] | changes}
    content = bytearray(json.dumps(manifest, indent=draw(st.none() | st.integers(0, 2))).encode())
    if draw(st.booleans()):
        start, stop = (draw(st.integers(0, len(content))) for _ in range(2))
        content[start:stop] = draw(st.binary(max_size=3))
    return bytes(content)


def canonical(manifest):
    return json.dumps(manifest, sort_keys=True)


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()) | manifests())
@settings(max_examples=500, deadline=None)
@pytest.mark.slow
def test_a_manifest_is_accepted_only_if_it_says_the_same(content):
    try:
        same = canonical(json.loads(content.decode())) == canonical(VALID)
    except (ValueError, KeyError, TypeError, RecursionError):
        same = False
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "manifest.json"
        path.write_bytes(content)
        if same:
            SketchCache(directory, KEY)
        else:
            with pytest.raises(ValueError, match="cache_dir="):
                SketchCache(directory, KEY)
        assert os.listdir(directory) == ["manifest.json"]
        assert path.read_bytes() == content


# Damaged blocks


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


def test_no_damaged_file_is_used(full):
    cache, path = full
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


def test_a_damaged_file_goes_when_the_block_is_not_reproducible(full):
    cache, path = full
    path.write_bytes(b"")
    with pytest.warns(UserWarning, match="damaged"):
        cache.get(0, INPUTS)
    cache.put(0, INPUTS, BLOCK + 1)
    assert not path.exists()
    for reader in (cache, SketchCache(cache.directory, KEY)):
        np.testing.assert_array_equal(reader.get(0, INPUTS), BLOCK + 1)


def test_a_whole_block_is_found_beside_a_damaged_one(tmp_path):
    for change in (1, 2, 3):
        SketchCache(tmp_path, KEY).put(0, INPUTS, BLOCK + change)
    first, second, third = sorted(tmp_path.glob("block-*"))
    first.write_bytes(b"")
    with pytest.warns(UserWarning, match=first.name) as caught:
        block = SketchCache(tmp_path, KEY).get(0, INPUTS)
    assert len(caught) == 1
    np.testing.assert_array_equal(block, np.load(second))
    assert third.exists()


def trap():
    raise AssertionError("code in a file was run")


class Mine:
    def __reduce__(self):
        return trap, ()


def saved(array):
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def rewrite(path, content):
    """Replace a block file by one whose name has the digest of other content."""
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
        saved(np.array([[Mine()]])),
        zipped(),
        saved(BLOCK.astype(int)),
        saved(BLOCK[0]),
        saved(BLOCK.astype(">f4" if sys.byteorder == "little" else "<f4")),
    ],
    ids=["empty", "header", "objects", "zip", "integers", "1-d", "byte order"],
)
def test_a_file_with_the_right_digest_that_is_no_block_is_not_used(full, content):
    cache, path = full
    rewrite(path, content)
    with pytest.warns(UserWarning, match="damaged"):
        assert SketchCache(cache.directory, KEY).get(0, INPUTS) is None


def test_a_file_in_fortran_order_comes_back_c_contiguous(full):
    cache, path = full
    rewrite(path, saved(np.asfortranarray(BLOCK)))
    block = SketchCache(cache.directory, KEY).get(0, INPUTS)
    assert block.flags.c_contiguous
    np.testing.assert_array_equal(block, BLOCK)


def test_a_block_that_is_gone_is_missing(full):
    cache, path = full
    path.unlink()
    assert cache.get(0, INPUTS) is None
    cache.put(0, INPUTS, BLOCK)
    assert cache.get(0, INPUTS) is not None


# Disks that are full and directories that are read-only


class FullFile(io.FileIO):
    def write(self, data):
        if self.tell():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(memoryview(data)[: len(data) // 2])


def fail(*args, number, **kwargs):
    raise OSError(number, os.strerror(number))


def break_writes(monkeypatch, where, number=errno.ENOSPC):
    if where == "write":
        monkeypatch.setattr(
            _cache,
            "open",
            lambda path, mode: io.BufferedWriter(FullFile(path, mode)),
            raising=False,
        )
    else:
        monkeypatch.setattr(os, where, functools.partial(fail, number=number))


@pytest.mark.parametrize("where", ["write", "fsync", "replace"])
def test_a_full_disk_leaves_the_finished_blocks_and_nothing_else(full, monkeypatch, where):
    cache, _ = full
    before = blocks(cache.directory)
    with monkeypatch.context() as patch:
        # Reading has its own way to open files.
        break_writes(patch, where)
        patch.setattr(cache, "_has_manifest", lambda: True)
        with pytest.raises(OSError, match="could not write block 1: No space left") as caught:
            cache.put(1, INPUTS, BLOCK)
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.__cause__.errno == errno.ENOSPC
    assert f"cache_dir={str(cache.directory)!r}" in str(caught.value)
    assert not temporaries(cache.directory)
    assert blocks(cache.directory) == before
    assert cache.get(1, INPUTS) is None
    cache.put(1, INPUTS, BLOCK)
    assert cache.get(1, INPUTS) is not None


def test_a_full_disk_when_the_cache_is_made(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        break_writes(patch, "fsync")
        with pytest.raises(OSError, match="could not open the cache: No space left") as caught:
            SketchCache(tmp_path, KEY)
    assert caught.value.errno == errno.ENOSPC
    assert not os.listdir(tmp_path)
    SketchCache(tmp_path, KEY)


def test_an_interrupt_leaves_no_temporary_file(full, monkeypatch):
    cache, _ = full

    def interrupt(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        cache.put(1, INPUTS, BLOCK)
    assert not temporaries(cache.directory)


@POSIX
def test_directories_that_cannot_be_synced(tmp_path, monkeypatch):
    sync, refused = os.fsync, []

    def fsync(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            refused.append(descriptor)
            raise OSError(errno.EINVAL, "Invalid argument")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    cache = SketchCache(tmp_path, KEY)
    cache.put(0, INPUTS, BLOCK)
    assert len(refused) == 2  # after the manifest and after the block
    assert cache.get(0, INPUTS) is not None


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, None])
def test_file_systems_without_links(tmp_path, monkeypatch, number):
    if number is None:
        monkeypatch.delattr(os, "link")
    else:
        break_writes(monkeypatch, "link", number)
    SketchCache(tmp_path, KEY).put(0, INPUTS, BLOCK)
    assert SketchCache(tmp_path, KEY).get(0, INPUTS) is not None
    with pytest.raises(ValueError, match="m is 2 in the cache and 3 in this run"):
        SketchCache(tmp_path, KEY | {"m": 3})
    assert not temporaries(tmp_path)


def check_read_only(directory, number):
    before = snapshot(directory)
    cache = SketchCache(directory, KEY)
    np.testing.assert_array_equal(cache.get(0, INPUTS), BLOCK)
    with pytest.raises(OSError, match="could not write block 1") as caught:
        cache.put(1, INPUTS, BLOCK)
    assert caught.value.errno == number
    assert f"cache_dir={str(directory)!r}" in str(caught.value)
    assert snapshot(directory) == before


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere"
)
def test_a_read_only_directory_can_be_read(full):
    cache, _ = full
    os.chmod(cache.directory, 0o555)
    try:
        check_read_only(cache.directory, errno.EACCES)
    finally:
        os.chmod(cache.directory, 0o755)


def test_a_read_only_file_system_can_be_read(full, monkeypatch):
    cache, _ = full
    old = cache.directory / "tmp-1-0123456789abcdef.partial"
    old.touch()
    os.utime(old, (0, 0))

    def read_only(path, mode, **kwargs):
        return fail(number=errno.EROFS) if set(mode) & set("xwa+") else open(path, mode, **kwargs)

    monkeypatch.setattr(_cache, "open", read_only, raising=False)
    for name in ("link", "replace", "rename", "unlink", "remove", "utime"):
        break_writes(monkeypatch, name, errno.EROFS)
    check_read_only(cache.directory, errno.EROFS)


# Processes. They import the module by its path: scikit-learn would take most of the time.

CHILD = f"""
import errno, importlib.util, os, random, signal, sys, time, traceback
from pathlib import Path
import numpy as np

spec = importlib.util.spec_from_file_location("cache", {inspect.getsourcefile(_cache)!r})
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
SketchCache, digest = module.SketchCache, module.digest
directory, KEY, N = Path(sys.argv[1]), {{"m": 64, "seed": 0}}, 24

def truth(index):
    return np.random.RandomState(index).normal(size=(500, 64))

def run(start=0):
    cache = SketchCache(directory, KEY)
    for index in range(start, N):
        if cache.get(index, digest(index)) is None:
            cache.put(index, digest(index), truth(index))

def fork(function, *args):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = function(*args) or 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return pid

def code(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def check():
    # Warnings are errors here: nothing may be damaged.
    cache = SketchCache(directory, KEY)
    done = 0
    for index in range(N):
        block = cache.get(index, digest(index))
        if block is not None:
            assert block.tobytes() == truth(index).tobytes(), index
            done += 1
    return done
"""


def child(code, directory, **kwargs):
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", CHILD + code, str(directory)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **kwargs,
    )


def finish(process):
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    return output


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    directory = tmp_path_factory.mktemp("uninterrupted")
    finish(child("run()", directory))
    content = blocks(directory)
    assert len(content) == 24
    return content


KILLS = """
random.seed(0)
partial, counts, kills = 0, [], 0
# Each run begins anew where the last one was, until sixty have been killed in the middle.
while kills < 60:
    if check() == N:
        for path in directory.glob("block-*"):
            path.unlink()
    # From a random block on, however fast the machine is at the moment.
    first, pid = random.randrange(N), fork(run)
    while len(list(directory.glob("block-*"))) < first:
        pass
    if kills % 2:
        time.sleep(random.uniform(0.0, 0.002))
    else:  # in the middle of a block, however short that moment is
        while not any(directory.glob("tmp-*")) and len(list(directory.glob("block-*"))) < N:
            pass
    os.kill(pid, signal.SIGKILL)
    kills += code(pid) == -signal.SIGKILL
    partial += len(list(directory.glob("tmp-*")))
    for path in directory.glob("tmp-*"):
        path.unlink()
    counts.append(check())
print(partial, len(set(counts)))
run()
assert check() == N
"""


@POSIX
@pytest.mark.slow
def test_killed_at_random_moments(tmp_path, uninterrupted):
    partial, different = map(int, finish(child(KILLS, tmp_path)).split())
    # The kills did meet runs that were writing, at different blocks.
    assert partial > 0
    assert different > 3
    assert blocks(tmp_path) == uninterrupted


STEPS = """
def die(step):
    # Every open, link, rename and remove is announced to this hook before it happens.
    def hook(event, args):
        nonlocal step
        if event in ("open", "os.link", "os.rename", "os.remove", "os.mkdir", "os.listdir"):
            if str(directory) in str(args[0]):
                step -= 1
                if step < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)
    run(N - 2)

step = 0
while True:
    for path in directory.glob("*"):
        path.unlink()
    killed = code(fork(die, step)) == -signal.SIGKILL
    done = check()
    if not killed:
        break
    step += 1
assert done == 2
run()
print(step)
"""


@POSIX
def test_killed_before_every_change(tmp_path, uninterrupted):
    directory = tmp_path / "cache"
    directory.mkdir()
    # To make the cache and two blocks takes at least an open and a rename or link of each.
    assert int(finish(child(STEPS, directory))) >= 6
    assert blocks(directory) == uninterrupted


@POSIX
def test_two_processes_write_the_same_cache(tmp_path, uninterrupted):
    code = "print('ready', flush=True); sys.stdin.read(1); run(); assert check() == N"
    processes = [child(code, tmp_path, stdin=subprocess.PIPE) for _ in range(2)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("x")
        process.stdin.flush()
    for process in processes:
        finish(process)
    assert blocks(tmp_path) == uninterrupted
    assert not temporaries(tmp_path)


RACE = """
base = directory
def enter(gate, key):
    os.close(gate[1])
    os.read(gate[0], 1)  # until the parent closes it
    try:
        SketchCache(directory, key)
    except ValueError as error:
        assert "is stale: seed is" in str(error), error
        return 3
for i in range(40):
    for seeds in ([0, 0, 0, 0], [0, 1, 2, 3]):
        directory = base / f"{i}-{len(set(seeds))}"
        gate = os.pipe()
        pids = [fork(enter, gate, {"m": 64, "seed": seed}) for seed in seeds]
        os.close(gate[0]), os.close(gate[1])
        codes = [code(pid) for pid in pids]
        if len(set(seeds)) == 1:
            assert codes == [0] * 4, codes
        else:
            assert sorted(codes) == [0, 3, 3, 3], codes
            SketchCache(directory, {"m": 64, "seed": seeds[codes.index(0)]})
        assert os.listdir(directory) == ["manifest.json"]
"""


@POSIX
@pytest.mark.slow
def test_processes_that_make_the_cache_at_the_same_time(tmp_path):
    finish(child(RACE, tmp_path))


LIMIT = """
import resource
run(N - 1)
before = {path.name: path.read_bytes() for path in directory.iterdir()}
cache = SketchCache(directory, KEY)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    cache.put(0, digest(0), truth(0))
except OSError as error:
    assert error.errno == errno.EFBIG, error
    assert f"cache_dir={str(directory)!r}" in str(error), error
else:
    raise AssertionError("written")
assert {path.name: path.read_bytes() for path in directory.iterdir()} == before
assert check() == 1
"""


@POSIX
def test_a_real_limit_in_the_middle_of_a_file(tmp_path):
    finish(child(LIMIT, tmp_path))


# The source


def test_nothing_in_the_module_runs_what_it_reads():
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
