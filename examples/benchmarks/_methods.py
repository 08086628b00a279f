"""Methods that several benchmarks share."""

from sklearn_skmm import SkMMSelector


def paper_skmm(n, seed):
    """Return a selector for Sketchy Moment Matching as published."""
    return SkMMSelector(n, c_S=0.999, init="vertex", rounding="choice", random_state=seed)
