"""The steps of a Pipeline before its last, which is a selector."""

from typing import Any

from sklearn.pipeline import Pipeline


def fit_before_last(selector: Any, X: Any, y: Any = None) -> tuple[Any, Any]:
    """Fit all steps but the last, which then gets metadata that is for it alone.

    Parameters
    ----------
    selector : selector or Pipeline
        A selector, or a Pipeline that ends in one.
    X : object
        What the first step takes.
    y : array-like or None, default=None
        Targets.

    Returns
    -------
    features : object
        What the selector is to be fitted on: X, as transformed by the steps before it.
    final : selector
        The selector, not fitted.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import MaxAbsScaler
    >>> from sklearn_skmm import UniformSelector
    >>> features, final = fit_before_last(
    ...     make_pipeline(MaxAbsScaler(), UniformSelector(1)), [[2.0], [4.0]]
    ... )
    >>> features.tolist(), final
    ([[0.5], [1.0]], UniformSelector(n_to_select=1))
    """
    if not isinstance(selector, Pipeline):
        return X, selector
    before = selector[:]
    # A Pipeline caches all steps but the last.
    before.steps[-1] = (before.steps[-1][0], "passthrough")
    X = before.fit_transform(X, y)
    selector.steps[:-1] = before.steps[:-1]  # those fitted from a cache are other objects
    return fit_before_last(selector[-1], X, y)
