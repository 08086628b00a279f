"""Helpers that know nothing of coresets.

The machine (`_threads`, `_memory`), scikit-learn's private names (`_sklearn`), descriptions that
docstrings share (`_docstrings`) and checks for estimators (`_validation`). These modules import
NumPy, scikit-learn and threadpoolctl, and nothing else of this package. They must not contain
algorithms or estimators.
"""
