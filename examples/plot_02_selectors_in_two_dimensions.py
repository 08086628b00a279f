"""
Every selector on the same picture
==================================

Two dimensions show what each selector looks for. The pool has five clusters of very different
sizes and widths, and a few outliers. Each selector selects 40 samples of it.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.linear_model import LogisticRegression

import sklearn_skmm as s

# %%
# A pool with large clusters, a small one and outliers
# ----------------------------------------------------

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
# Twelve selections
# -----------------
# Two of the selectors need more than X. The uncertainty of a classifier needs labels; here they are
# the clusters. The gradient norm needs per-sample gradients; here the points are used as gradients.

n = 40
selectors = {
    "SkMM (default)": s.SkMMSelector(n, random_state=0),
    "SkMM (paper)": s.SkMMSelector(n, init="vertex", rounding="choice", random_state=0),
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
# Selected samples in each cluster
# --------------------------------

print("selected in the clusters of", *sizes, "samples, and among the outliers")
for name, count in counts.items():
    print(f"{name:20}", *(f"{k:4d}" for k in count))

# %%
# Methods that favour long vectors or extremes (V-optimal design, gradient norm, k-center, herding)
# spend much of the coreset on the rim and the outliers. Random sampling leaves the small clusters
# to chance, and so does the paper's algorithm, whose last step is random. Facility location and
# k-means cover all of the data, including outliers. The default of SkMM also covers the data, and
# selects fewer outliers. Two dimensions are unfair to V-optimal design and the leverage scores:
# with as many directions as samples, they select more than the rim.
