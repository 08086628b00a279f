"""
No selector is the best everywhere
==================================

On a single data set, almost any method can be shown to win. A performance profile combines several
tasks. For each method and each factor, it shows the fraction of tasks on which the method's loss is
within this factor of the smallest loss of all methods. This example uses eight small tasks; the
page on choosing a selector has a profile of larger ones.
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
# Each data set, and the profile
# ------------------------------

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
# The loss is the error rate, one minus the accuracy.

display = PerformanceProfileDisplay.from_results(
    results, line_kw={"SkMM": {"linewidth": 2.8, "zorder": 3}}
)
display.ax_.set_xlabel("error divided by the smallest error")
plt.show()

# %%
# The left end of a curve shows how often the method is the best. The factor at which the curve
# reaches one shows how bad its worst task is.

summary = display.ratios_.agg(["median", "max"]).T
summary.insert(0, "best on", (display.ratios_ == 1).sum())
print(summary.round(2).to_string())
