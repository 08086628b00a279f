"""Constants and helpers for tests of sketch caches."""

import os
from pathlib import Path

import numpy as np
import pytest

from sklearn_skmm.sketch._cache import digest

KEY = {"m": 2, "seed": 0, "loss": "mean", "scale": 0.5, "centred": True, "layers": None}
INPUTS = digest("inputs")
BLOCK = np.arange(6, dtype=np.float32).reshape(3, 2)
POSIX = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and signals")


def snapshot(directory):
    """Return the files of a directory with their times and contents, to see whether any changed."""
    paths = sorted(Path(directory).rglob("*"))
    return {
        str(path): (path.lstat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
        for path in paths
    }


def blocks(directory):
    return {path.name: path.read_bytes() for path in Path(directory).glob("block-*")}


def temporaries(directory):
    return list(Path(directory).glob("tmp-*"))
