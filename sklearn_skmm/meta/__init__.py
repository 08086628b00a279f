"""Estimators and functions around selectors.

`CoresetEstimator` fits an estimator on a coreset, `SelectorQuery` makes a selector a query strategy
for active learning, and `compare_selectors` evaluates selectors on the same splits and seeds.
"""
