"""Sketch caches on full disks, read-only directories and limited file systems."""

import errno
import functools
import io
import os
import stat

import numpy as np
import pytest

from sklearn_skmm.sketch import _cache
from sklearn_skmm.sketch._cache import SketchCache
from tests.sketch._caches import BLOCK, INPUTS, KEY, POSIX, blocks, snapshot, temporaries


class FullFile(io.FileIO):
    """A file that takes half of what is written and then has no space left."""

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
def test_full_disk_keeps_finished_blocks_and_leaves_no_partial_file(
    cache_and_path, monkeypatch, where
):
    cache, _ = cache_and_path
    before = blocks(cache.directory)
    with monkeypatch.context() as patch:
        break_writes(patch, where)
        # The replacement of `open` cannot read the manifest.
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


def test_full_disk_when_the_cache_is_created(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        break_writes(patch, "fsync")
        with pytest.raises(OSError, match="could not open the cache: No space left") as caught:
            SketchCache(tmp_path, KEY)
    assert caught.value.errno == errno.ENOSPC
    assert not os.listdir(tmp_path)
    SketchCache(tmp_path, KEY)


def test_interrupt_leaves_no_temporary_file(cache_and_path, monkeypatch):
    cache, _ = cache_and_path

    def interrupt(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        cache.put(1, INPUTS, BLOCK)
    assert not temporaries(cache.directory)


@POSIX
def test_file_system_that_cannot_sync_directories(tmp_path, monkeypatch):
    sync, refused = os.fsync, []

    def fsync(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            refused.append(descriptor)
            raise OSError(errno.EINVAL, "Invalid argument")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    cache = SketchCache(tmp_path, KEY)
    cache.put(0, INPUTS, BLOCK)
    assert len(refused) == 2  # once for the manifest and once for the block
    assert cache.get(0, INPUTS) is not None


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, None])
def test_file_system_without_hard_links(tmp_path, monkeypatch, number):
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
def test_read_only_directory_can_be_read(cache_and_path):
    cache, _ = cache_and_path
    os.chmod(cache.directory, 0o555)
    try:
        check_read_only(cache.directory, errno.EACCES)
    finally:
        os.chmod(cache.directory, 0o755)


def test_read_only_file_system_can_be_read(cache_and_path, monkeypatch):
    cache, _ = cache_and_path
    old = cache.directory / "tmp-1-0123456789abcdef.partial"
    old.touch()
    os.utime(old, (0, 0))

    def read_only(path, mode, **kwargs):
        return fail(number=errno.EROFS) if set(mode) & set("xwa+") else open(path, mode, **kwargs)

    monkeypatch.setattr(_cache, "open", read_only, raising=False)
    for name in ("link", "replace", "rename", "unlink", "remove", "utime"):
        break_writes(monkeypatch, name, errno.EROFS)
    check_read_only(cache.directory, errno.EROFS)
