"""Configuration of pytest for all tests."""

import os

import pytest

# Workers of pytest-xdist share the cores, so each gets one thread of BLAS, OpenMP and torch. NumPy
# reads the variable when it is imported.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items):
    """Mark documentation pages as slow, which leaves them out of the quick run."""
    for item in items:
        if item.path.suffix in (".md", ".rst"):
            item.add_marker(pytest.mark.slow)
