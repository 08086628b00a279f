"""
No selector is the best everywhere
==================================

On one data set nearly any method can be shown to win. A performance profile puts several together:
the share of tasks on which a method's loss is within a factor of the least of all methods' there.
The documentation has larger ones, under *Which selector?*; here are eight small ones.
"""

import matplotlib.pyplot as plt
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import scale

from sklearn_skmm import (
    GradNormSelector,
    KCenterSelector,
    KMeansSelector,
    PerformanceProfileDisplay,
    SelectionCurveDisplay,
    SkMMSelector,
    UniformSelector,
    VOptimalSelector,
    compare_selectors,
)

selectors = {
    "SkMM": SkMMSelector(1),
    "k-means": KMeansSelector(1),
    "k-center": KCenterSelector(1),
    "V-optimal": VOptimalSelector(1),
    "gradient norm": GradNormSelector(1),
    "uniform": UniformSelector(1),
}
loaders = [load_iris, load_wine, load_breast_cancer, load_digits]

# %%
# Four data sets, two sizes each
# ------------------------------

results = {}
for load in loaders:
    X, y = load(return_X_y=True)
    X = X / 16 if load is load_digits else scale(X)
    results[load.__name__.removeprefix("load_")] = compare_selectors(
        selectors,
        LogisticRegression(C=10, max_iter=1000),
        X,
        y,
        n_to_select=[20, 40],
        cv=StratifiedKFold(5, shuffle=True, random_state=0),
        random_state=0,
    )

# %%
# One by one, and together
# ------------------------

figure, axes = plt.subplots(2, 2, figsize=(10, 7), layout="constrained")
for (name, result), ax in zip(results.items(), axes.flat, strict=True):
    SelectionCurveDisplay.from_results(
        result, ax=ax, score_name="accuracy", std_display_style=None, log_scale=False
    )
    ax.set(title=name, xlabel="n")
    handles, labels = ax.get_legend_handles_labels()
    ax.get_legend().remove()
figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
plt.show()

# %%
# The loss is the error, one minus the accuracy.

display = PerformanceProfileDisplay.from_results(
    results, line_kw={"SkMM": {"linewidth": 2.8, "zorder": 3}}
)
display.ax_.set_xlabel("error divided by the least")
plt.show()

# %%
# The left end says how often each is the best, and where a curve reaches one, how bad its worst
# task is.

summary = display.ratios_.agg(["median", "max"]).T
summary.insert(0, "best on", (display.ratios_ == 1).sum())
print(summary.round(2).to_string())
