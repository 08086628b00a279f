"""Scorers of selectors for the ``scoring`` parameter of searches."""

from sklearn.pipeline import Pipeline

from sklearn_skmm.core._criteria import CRITERIA


class SelectionScorer:
    r"""Score a fitted selector, or a pipeline that ends with one, by a criterion without labels.

    Pass it as ``scoring`` to `GridSearchCV` or `cross_validate`. Several scorers in a dict compare
    settings by several criteria. More is better for each of them.

    Parameters
    ----------
    criterion : {"mmd", "coverage", "explained_moment", "v_optimality"}, default="mmd"
        What to compute for the samples X, whose second moment is :math:`\Sigma`, and the coreset
        S.

        - ``"mmd"``: :math:`1 - \mathrm{MMD}^2(X, S)`, as in the `score` of selectors.
        - ``"coverage"``: the mean similarity of a sample to the nearest selected one,
          :math:`\frac{1}{N} \sum_i \max_{j \in S} \exp(-\|x_i - x_j\|^2 / (2 h^2))`, with the same
          kernel.
        - ``"explained_moment"``: the fraction of the second moment that ridge regression on the
          coreset explains,
          :math:`tr(\Sigma \Sigma_S (\Sigma_S + \alpha I)^{-1}) / tr(\Sigma)`.
        - ``"v_optimality"``: :math:`-tr(\Sigma (\Sigma_S + \alpha I)^{-1})`.

        The ridge :math:`\alpha` is :math:`tr(\Sigma_{fit}) / N`, the threshold in the paper's
        intrinsic dimension.

    Attributes
    ----------
    criterion : str
        The criterion.

    See Also
    --------
    sklearn_skmm.diagnostics : Criteria as functions of an array and positions.
    CoresetEstimator : Search by the score of an estimator that is fitted on the coreset.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.model_selection import GridSearchCV
    >>> from sklearn_skmm import SelectionScorer, SkMMSelector
    >>> X, _ = load_digits(return_X_y=True)
    >>> search = GridSearchCV(
    ...     SkMMSelector(50, random_state=0),
    ...     {"rounding": ["systematic", "cells"]},
    ...     scoring=SelectionScorer("coverage"),
    ... )
    >>> search.fit(X).best_params_
    {'rounding': 'cells'}
    """

    def __init__(self, criterion="mmd"):
        if criterion not in CRITERIA:
            raise ValueError(
                f"The 'criterion' parameter of SelectionScorer must be a str among "
                f"{set(CRITERIA)}. Got {criterion!r} instead."
            )
        self.criterion = criterion

    def __call__(self, estimator, X, y=None) -> float:
        """Return the criterion of a fitted selector on X.

        Parameters
        ----------
        estimator : selector or Pipeline
            Fitted selector, or a fitted pipeline whose last step is one.
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Samples to represent: what the first step takes.
        y : object, default=None
            Ignored.

        Returns
        -------
        score : float
            The criterion; more is better.
        """
        if isinstance(estimator, Pipeline):
            if len(estimator.steps) > 1:
                X = estimator[:-1].transform(X)
            estimator = estimator[-1]
        if not hasattr(estimator, "_criterion"):
            raise TypeError(
                "SelectionScorer needs a selector, or a Pipeline whose last step is one. Got "
                f"{estimator!r} instead."
            )
        return estimator._criterion(self.criterion, X)

    def __repr__(self) -> str:
        return f"SelectionScorer({self.criterion!r})"
