"""What several of the comparisons run."""

from sklearn_skmm import SkMMSelector


def paper_skmm(n, seed):
    """Sketchy Moment Matching as published."""
    return SkMMSelector(n, c_S=0.999, init="vertex", rounding="choice", random_state=seed)
