"""Estimators and functions around selectors.

`CoresetEstimator` fits an estimator on a coreset, `CoresetSampler` makes a selector a step of
imbalanced-learn's Pipeline, `SelectorQuery` makes it a query strategy for active learning, and
`compare_selectors` evaluates selectors on the same splits and seeds.
"""
