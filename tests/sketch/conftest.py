"""Fixtures for tests of sketch caches."""

import pytest

from sklearn_skmm.sketch._cache import SketchCache
from tests.sketch._caches import BLOCK, INPUTS, KEY


@pytest.fixture
def cache_and_path(tmp_path):
    """Return a cache with one block, and the path of the block's file."""
    cache = SketchCache(tmp_path / "cache", KEY)
    cache.put(0, INPUTS, BLOCK)
    (path,) = cache.directory.glob("block-*")
    return cache, path
