"""Links, pipes and folders in place of the files of a sketch cache."""

import errno
import os
import signal

import pytest

from sklearn_skmm.sketch._cache import SketchCache
from tests.sketch._caches import BLOCK, INPUTS, KEY, POSIX


@POSIX
def test_symbolic_links_are_rejected(cache_and_path, tmp_path):
    cache, path = cache_and_path
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
def test_link_added_after_opening_is_rejected(cache_and_path, tmp_path):
    path = cache_and_path[1]
    fresh = SketchCache(tmp_path / "fresh", KEY)
    (fresh.directory / path.name).symlink_to(path)
    with pytest.raises(ValueError, match="not a regular file"):
        fresh.get(0, INPUTS)


@POSIX
def test_link_created_after_the_check_is_not_followed(cache_and_path, tmp_path, monkeypatch):
    cache, path = cache_and_path
    target = tmp_path / "target"
    os.rename(path, target)
    path.symlink_to(target)
    monkeypatch.setattr(os, "lstat", os.stat)  # let the check follow the link to a regular file
    with pytest.raises(OSError, match="could not read block 0") as caught:
        cache.get(0, INPUTS)
    assert caught.value.errno == errno.ELOOP


@POSIX
def test_pipe_created_after_the_check_does_not_block_get(cache_and_path, monkeypatch):
    cache, path = cache_and_path
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
def test_special_files_are_rejected_without_blocking(cache_and_path, make):
    cache, path = cache_and_path
    for victim in (path, cache.directory / "manifest.json"):
        victim.unlink()
        make(victim)
        with pytest.raises(ValueError, match="not a regular file"):
            SketchCache(cache.directory, KEY)


@POSIX
def test_directory_may_be_a_symbolic_link(cache_and_path, tmp_path):
    (tmp_path / "link").symlink_to(cache_and_path[0].directory)
    assert SketchCache(tmp_path / "link", KEY).get(0, INPUTS) is not None
