"""The selectors, one class per file, each asked for by name.

A selector may import from `core`, `data`, `utils` and `sklearn_skmm.base`. No selector imports
another.
"""
