"""Parameter and attribute descriptions that several docstrings share."""

import re

SHARED = {
    "n_to_select": """
n_to_select : int, float or dict
    Number of samples to select. A float in (0, 1] is a fraction of the samples. A dict has the
    number for each class of y, as in ``{"cat": 20, "dog": 0.1}``, and none are selected from
    classes that it lacks.
""",
    "budget": """
budget : float or None, default=None
    Largest sum of the costs of the selected samples, in place of `n_to_select`. `fit` then needs
    the `cost` of each sample.
""",
    "stratify": """
stratify : bool or "balanced", default=False
    Whether to select within each class of y, in proportion to its size or, with "balanced", as
    many from each class as far as it has them.
""",
    "random_state": """
random_state : int, RandomState instance or None, default=None
    Controls the randomness of the selection. Pass an int for the same selection in every call.
""",
    "sample_indices_ascending": """
sample_indices_ : ndarray of shape (n_to_select,), dtype int
    Positions of the selected samples, in ascending order.
""",
    "sample_indices_in_order": """
sample_indices_ : ndarray of shape (n_to_select,), dtype int
    Positions of the selected samples, in the order in which they were selected.
""",
    "sample_weight_equal": """
sample_weight_ : ndarray of shape (n_to_select,)
    N / n for each selected sample.
""",
    "fitted": """
given_weight_ : ndarray of shape (n_given,)
    The same as `sample_weight_` for the samples in `selected`. Only if there are any.
n_samples_seen_ : int
    Number of samples seen in `fit`.
strata_ : ndarray of shape (n_strata,)
    Classes of y. Only if the selection is by class.
n_features_in_ : int
    Number of features seen in `fit`.
feature_names_in_ : ndarray of shape (n_features,)
    Names of the features, if X has column names that are all strings.
""",
}


def with_shared(doc: str | None) -> str | None:
    """Replace each line that is a name in braces, such as ``{stratify}``, with its description.

    Parameters
    ----------
    doc : str or None
        A docstring. None, which is what `python -OO` leaves, is returned unchanged.

    Returns
    -------
    doc : str or None
        The docstring with descriptions from `SHARED`, each indented like the name it replaces.

    Raises
    ------
    KeyError
        If `SHARED` has no description of that name.

    Examples
    --------
    >>> print(with_shared("{sample_weight_equal}"))
    sample_weight_ : ndarray of shape (n_to_select,)
        N / n for each selected sample.
    """

    def description(match):
        lines = SHARED[match[2]].strip().splitlines()
        return "\n".join(match[1] + line for line in lines)

    return doc and re.sub(r"^( *)\{(\w+)\}$", description, doc, flags=re.MULTILINE)
