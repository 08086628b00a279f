"""Processes of pytest-xdist share the cores: each has one thread of BLAS, OpenMP and torch."""

import os

# Before NumPy is imported, which reads it once.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
