"""Functions of arrays: moments, random draws, cells, exemplars and optimal designs.

These modules import NumPy, SciPy, ``sklearn.utils.extmath`` and `sklearn_skmm.utils` only. They
must not define estimators, read or write files, validate input, or import PyTorch or Matplotlib.
"""
