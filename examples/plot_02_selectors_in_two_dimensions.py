"""
Every selector on the same picture
==================================

What a selector looks for shows in two dimensions. The pool has five clusters of very different
sizes and widths, and a few outliers. Each selector picks 40 of its samples.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.linear_model import LogisticRegression

import sklearn_skmm as s

# %%
# A pool with crowds, a rare cluster and outliers
# -----------------------------------------------

rng = np.random.RandomState(0)
sizes = [500, 250, 120, 40, 12]
centres = np.array([[-3.0, -1.5], [2.5, -2.5], [0.0, 2.5], [4.0, 2.0], [-4.5, 3.0]])
widths = [1.0, 0.6, 0.8, 0.3, 0.15]
X = np.vstack(
    [
        *[c + w * rng.normal(size=(k, 2)) for c, w, k in zip(centres, widths, sizes, strict=True)],
        rng.uniform(-8, 8, size=(10, 2)),
    ]
)
y = np.repeat(np.arange(6), [*sizes, 10])

# %%
# Twelve answers
# --------------
# Two of them need more than X: the uncertainty of a classifier, here one that learns the clusters,
# and per-sample gradients, for which the points themselves stand.

n = 40
selectors = {
    "SkMM (default)": s.SkMMSelector(n, random_state=0),
    "SkMM (the paper's)": s.SkMMSelector(n, init="vertex", rounding="choice", random_state=0),
    "uniform": s.UniformSelector(n, random_state=0),
    "facility location": s.FacilityLocationSelector(n, random_state=0),
    "k-means": s.KMeansSelector(n, random_state=0),
    "k-center": s.KCenterSelector(n, random_state=0),
    "herding": s.HerdingSelector(n),
    "adaptive": s.AdaptiveSelector(n, random_state=0),
    "ridge leverage": s.RidgeLeverageSelector(n, random_state=0),
    "V-optimal": s.VOptimalSelector(n),
    "uncertainty": s.UncertaintySelector(n, LogisticRegression(max_iter=2000)),
    "gradient norm": s.GradNormSelector(n),
}
figure, axes = plt.subplots(3, 4, figsize=(12, 9), sharex=True, sharey=True, layout="constrained")
counts = {}
for (name, selector), ax in zip(selectors.items(), axes.flat, strict=True):
    selector.fit(X, y)
    s.CoresetDisplay.from_selector(selector, X, ax=ax, coreset_kw={"s": 26})
    ax.set(title=name, xlabel="", ylabel="")
    ax.get_legend().remove()
    counts[name] = np.bincount(y[selector.sample_indices_], minlength=6)
handles, labels = axes[0, 0].get_legend_handles_labels()
figure.legend(handles, labels, loc="outside lower center", ncols=2, markerscale=1.5)
plt.show()

# %%
# How many picks went where
# -------------------------

print("picks in the clusters of", *sizes, "samples, and among the outliers")
for name, count in counts.items():
    print(f"{name:20}", *(f"{k:4d}" for k in count))

# %%
# Methods that look at length or extremes (V-optimal design, gradient norm, k-center, herding) spend
# much of the coreset on the rim and the outliers; a uniform draw leaves the small clusters to
# chance, and so does the paper's algorithm, which ends in a draw; facility location and k-means
# cover, outliers included. The default of SkMM covers too and takes fewer of the outliers. Two
# dimensions do V-optimal design and the leverage scores an injustice: with as many directions as
# samples there is more to choose than the rim.
