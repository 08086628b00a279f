"""Stage one: the estimator, random projections and the cache of sketches.

The package uses NumPy and SciPy, and imports `data`, `core` and `utils`. Only its `_torch` folder
imports torch.
"""
