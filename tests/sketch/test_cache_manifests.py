"""Manifests of sketch caches that are damaged, truncated or of another version."""

import json
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sklearn_skmm.sketch import _cache
from sklearn_skmm.sketch._cache import SketchCache
from tests.sketch._caches import KEY, snapshot


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
def test_unusable_manifest_is_rejected(cache_and_path, content, reason):
    cache, _ = cache_and_path
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


def test_manifest_truncated_at_any_length_is_rejected(cache_and_path):
    cache, _ = cache_and_path
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
    """Draw contents close to a valid manifest: with fields or bytes replaced, added or removed."""
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
def test_only_equivalent_manifests_are_accepted(content):
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
