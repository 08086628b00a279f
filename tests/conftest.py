"""What holds for all tests."""

import os

import pytest

# Processes of pytest-xdist share the cores: one thread of BLAS, OpenMP and torch for each. NumPy
# reads this when it is imported.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items):
    """Leave whole pages of the documentation out of the quick run."""
    for item in items:
        if item.path.suffix in (".md", ".rst"):
            item.add_marker(pytest.mark.slow)
