"""Compare selectors on the same splits and seeds."""

import warnings
from collections import Counter
from collections.abc import Mapping
from numbers import Real
from time import perf_counter
from traceback import format_exc

import numpy as np
from sklearn.base import clone, is_classifier
from sklearn.callback import CallbackSupportMixin, with_callbacks
from sklearn.exceptions import FitFailedWarning
from sklearn.metrics import check_scoring
from sklearn.model_selection import check_cv
from sklearn.pipeline import Pipeline
from sklearn.utils import check_random_state, indexable
from sklearn.utils.parallel import Parallel, delayed

from sklearn_skmm.meta._coreset_estimator import knowing_all_classes
from sklearn_skmm.utils._sklearn import StrOptions, _safe_indexing, validate_params
from sklearn_skmm.utils._validation import MAX_SEED


class _Comparison(CallbackSupportMixin):
    """Run the tasks of one call of `compare_selectors`, and report them to its callbacks."""

    @with_callbacks
    def run(self, tasks, n_jobs):
        """Return the row of each task, and the errors of the fits and of the scores by row."""
        context = self._init_callback_context(task_name="compare", max_subtasks=len(tasks))
        context.call_on_fit_task_begin(estimator=self)
        rows, fit_errors, score_errors = [], [], []
        for row, fit_error, score_error in Parallel(n_jobs=n_jobs, return_as="generator")(
            delayed(_select_fit_score)(*task) for task in tasks
        ):
            subcontext = context.subcontext(task_name=f"{row['selector']}, n={row['n']}")
            subcontext.call_on_fit_task_begin(estimator=self)
            rows.append(row)
            fit_errors.append(fit_error)
            score_errors.append(score_error)
            subcontext.call_on_fit_task_end(estimator=self)
        context.call_on_fit_task_end(estimator=self)
        return rows, list(filter(None, fit_errors)), list(filter(None, score_errors))


def _final_step(selector):
    return selector[-1] if isinstance(selector, Pipeline) else selector


def _select_fit_score(
    name, selector, estimator, scorer, X, y, train, test, n, split, seed, error_score
):
    """Select a coreset, fit the estimator on it and score that; the seed is for both.

    Returns the row of the table, and the error of the selection or the fit and that of the score,
    each a traceback or None.
    """
    row = {"selector": name, "n": n, "split": split, "seed": seed, "score": error_score}
    row["seconds"] = np.nan
    X_train, y_train = _safe_indexing(X, train), _safe_indexing(y, train)
    try:
        selector, estimator = clone(selector), clone(estimator)
        final = _final_step(selector)
        final.set_params(n_to_select=n)
        for part in (final, estimator):
            if "random_state" in part.get_params():
                part.set_params(random_state=seed)
        start = perf_counter()
        indices = selector.fit_transform(X_train, y_train)
        row["seconds"] = perf_counter() - start
        estimator.fit(_safe_indexing(X_train, indices), _safe_indexing(y_train, indices))
    except Exception:
        if error_score == "raise":
            raise
        return row, format_exc(), None
    try:
        model = knowing_all_classes(estimator, selector, y_train)
        score = scorer(model, _safe_indexing(X, test), _safe_indexing(y, test))
    except Exception:
        if error_score == "raise":
            raise
        return row, None, format_exc()
    row["score"] = float(score)
    return row, None, None


def _report_failures(n_fits, fit_errors, score_errors, error_score):
    """Warn of fits and scores that failed, or raise ValueError if all fits did."""
    advice = "Set error_score='raise' to see where that happens."
    if len(fit_errors) == n_fits:
        raise ValueError(f"All the {n_fits} fits failed. {advice}\n\n{_summary(fit_errors)}")
    for errors, what, category in (
        (fit_errors, "fits", FitFailedWarning),
        (score_errors, "scores", UserWarning),
    ):
        if errors:
            warnings.warn(
                f"{len(errors)} {what} failed out of a total of {n_fits}. The score in these rows "
                f"is {error_score}. {advice}\n\n{_summary(errors)}",
                category,
                stacklevel=4,
            )


def _summary(errors) -> str:
    """Return each traceback once, with how often it occurred."""
    counted = Counter(errors).items()
    return "\n".join(
        f"{count} failed with the following error:\n{error}" for error, count in counted
    )


@validate_params(
    {"error_score": [StrOptions({"raise"}), Real]}, prefer_skip_nested_validation=False
)
def compare_selectors(
    selectors,
    estimator,
    X,
    y,
    *,
    n_to_select,
    cv=None,
    scoring=None,
    n_repeats=1,
    random_state=None,
    n_jobs=None,
    callbacks=(),
    error_score=np.nan,
):
    """Fit an estimator on the coreset of each selector, at each size, on each split.

    Use it to find the selector and the coreset size for an estimator. All selectors get the same
    splits and seeds, so their differences are paired.

    Parameters
    ----------
    selectors : dict of str to selector, or list of selectors
        The selectors to compare. Each may be a Pipeline that ends in a selector. Those in a list
        are named by their classes.
    estimator : estimator
        The estimator to fit on each coreset.
    X : {array-like, sparse matrix, dataframe} of shape (n_samples, n_features)
        The data.
    y : array-like of shape (n_samples,)
        Targets.
    n_to_select : int, float, or list of int and float
        Coreset sizes, each as in the parameter of the selectors.
    cv : int, splitter, iterable or None, default=None
        How to split into training and test sets, as in `cross_validate`.
    scoring : str, callable or None, default=None
        The score. None means the estimator's own.
    n_repeats : int, default=1
        Number of seeds for each split.
    random_state : int, RandomState instance or None, default=None
        Controls the seeds of those selectors and estimators that have a `random_state`.
    n_jobs : int or None, default=None
        Number of parallel jobs. The results do not depend on it.
    callbacks : list of callbacks, default=()
        Callbacks of scikit-learn, for instance `ProgressBar`.
    error_score : "raise" or float, default=nan
        The score in a row whose selection, fit or score raised an error, as in `cross_validate`: a
        small coreset may lack a class, for instance. "raise" raises the error.

    Returns
    -------
    results : DataFrame
        One row for each selector, n, split and seed. `score` is the score on the test set, and
        `seconds` is the time that the selection took, nan if it failed.

    Warns
    -----
    FitFailedWarning
        If some selections or fits failed.
    UserWarning
        If some scores could not be computed.

    Raises
    ------
    ValueError
        If two selectors have the same name, or if all fits failed.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn_skmm import KMeansSelector, UniformSelector, compare_selectors
    >>> X, y = load_iris(return_X_y=True)
    >>> results = compare_selectors(
    ...     [UniformSelector(1), KMeansSelector(1)], LogisticRegression(), X, y,
    ...     n_to_select=[20, 40], cv=3, random_state=0,
    ... )
    >>> results.groupby("selector").size().to_dict()
    {'KMeansSelector': 6, 'UniformSelector': 6}
    """
    import pandas as pd  # an optional dependency

    if not isinstance(selectors, Mapping):
        names = [type(_final_step(selector)).__name__ for selector in selectors]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(
                "The 'selectors' parameter of compare_selectors must have distinct class names if "
                f"it is a list. Got more than one {repeated} instead. Pass a dict of names."
            )
        selectors = dict(zip(names, selectors, strict=True))
    X, y = indexable(X, y)
    scorer = check_scoring(estimator, scoring=scoring)
    splits = list(check_cv(cv, y, classifier=is_classifier(estimator)).split(X, y))
    rng = check_random_state(random_state)
    seeds = rng.randint(MAX_SEED, size=(len(splits), n_repeats)).tolist()
    sizes = n_to_select if isinstance(n_to_select, list | tuple | np.ndarray) else [n_to_select]
    tasks = [
        (name, selector, estimator, scorer, X, y, train, test, n, split, seed, error_score)
        for name, selector in selectors.items()
        for n in (size.item() if isinstance(size, np.generic) else size for size in sizes)
        for split, (train, test) in enumerate(splits)
        for seed in seeds[split]
    ]
    comparison = _Comparison()
    comparison.set_callbacks(*callbacks)
    rows, fit_errors, score_errors = comparison.run(tasks, n_jobs)
    _report_failures(len(rows), fit_errors, score_errors, error_score)
    return pd.DataFrame(rows)
