"""
Variance and bias of a regression on a coreset
==============================================

This is the paper's synthetic task. Each cluster lies on an axis of its own, the clusters have very
different sizes, and the target is constant within a cluster. Ridge regression is fitted on n
selected samples. If the coreset misses a cluster, the model cannot know its target: this is the
bias. Once all clusters are found, only the variance remains. The full-size comparison is
``examples/benchmarks/table1.py``.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import ShuffleSplit
from sklearn.pipeline import make_pipeline

from sklearn_skmm import (
    GradientSketcher,
    KCenterSelector,
    KMeansSelector,
    SelectionCurveDisplay,
    SkMMSelector,
    UniformSelector,
    compare_selectors,
)
from sklearn_skmm.datasets import make_gmm_regression
from sklearn_skmm.diagnostics import bias_term, variance_term

data = make_gmm_regression(600, 100, random_state=0)
print("samples in each cluster:", np.sort(np.bincount(data.clusters)))

# %%
# Risk against n
# --------------
# All selectors use the same sketch of the features, the same splits and the same seeds.

selectors = {
    "SkMM (default)": SkMMSelector(1),
    "SkMM (paper)": SkMMSelector(1, init="vertex", rounding="choice", tol=1e-4),
    "k-means": KMeansSelector(1),
    "k-center": KCenterSelector(1),
    "uniform": UniformSelector(1),
}
sketched = {
    name: make_pipeline(GradientSketcher(m=32, random_state=0), selector)
    for name, selector in selectors.items()
}
results = compare_selectors(
    sketched,
    RidgeCV(alphas=np.geomspace(1e-3, 1e2, 6), fit_intercept=False),
    data.X,
    data.y,
    n_to_select=[8, 16, 32, 64],
    cv=ShuffleSplit(5, test_size=0.3, random_state=0),
    scoring="neg_mean_squared_error",
    random_state=0,
)
risk = results.assign(score=-results["score"])
display = SelectionCurveDisplay.from_results(
    risk, score_name="mean squared error on the test set", std_display_style=None, log_scale=True
)
plt.show()

# %%
# The two terms
# -------------
# For a coreset and a subspace spanned by some of its principal directions, the theory has one term
# for the bias and one for the variance. The subspace used here is spanned by the coreset's eight
# leading directions, as many as there are clusters. Both terms can be computed without targets. The
# label noise and the norm of the best parameters only scale them.

sketch = GradientSketcher(m=32, random_state=0).fit_transform(data.X)
rows = []
for n in (4, 8, 16, 32, 64):
    for seed in range(5):
        for name in ("SkMM (default)", "uniform"):
            selector = selectors[name].set_params(n_to_select=n, random_state=seed)
            picks = selector.fit_transform(sketch)
            basis = np.linalg.svd(sketch[picks], full_matrices=False)[2][:8]
            bias = bias_term(sketch, picks, basis=basis)
            rows.append((name, n, seed, bias, variance_term(sketch, picks, basis=basis)))
terms = pd.DataFrame(rows, columns=["selector", "n", "seed", "bias", "variance"])

figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
for ax, term, title in (
    (axes[0], "bias", "bias: outside the subspace"),
    (axes[1], "variance", "variance: within the subspace"),
):
    SelectionCurveDisplay.from_results(
        terms.assign(score=terms[term]),
        ax=ax,
        std_display_style=None,
        log_scale=True,
        score_name=f"{term} term, mean of 5 seeds",
    )
    ax.set_title(title)
plt.show()

means = terms.groupby(["n", "selector"])[["bias", "variance"]].mean()
print(means.to_string(float_format="{:.3g}".format))

# %%
# Random sampling needs many samples to find the smallest clusters, and so does the paper's
# algorithm, whose last step is random. k-means is about as good as the default, sometimes better
# and sometimes worse, because this task only requires finding the clusters. k-center finds them
# too, but it selects extreme samples within them, so its error remains.
