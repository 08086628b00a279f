"""Functions of arrays: moments, random draws, cells, exemplars and optimal designs.

These modules import NumPy, SciPy, ``sklearn.utils.extmath`` and `sklearn_skmm.utils` only
(`_leverage` also builds a `Selection` of `sklearn_skmm.base`). They must not define estimators,
read or write files, validate arrays, or import PyTorch or Matplotlib.
"""
