"""The command line, ``sklearn-skmm``.

It may import everything else; only `sklearn_skmm.__main__` imports it.
"""
