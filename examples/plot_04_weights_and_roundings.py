"""
From weights to a coreset
=========================

Moment matching computes a weight for each sample; the rounding turns the weights into n samples.
The rounding affects the coreset more than the weights do. The parameter c_S determines which
samples may get a weight of zero.
"""

import matplotlib.pyplot as plt
import numpy as np

from sklearn_skmm import CoresetDisplay, SkMMSelector
from sklearn_skmm.core._draws import choice, systematic

rng = np.random.RandomState(1)
sizes = [240, 120, 30, 10]
centres = np.array([[-3.0, 0.0], [2.5, 1.5], [0.5, -3.0], [4.0, -2.5]])
X = np.vstack([c + 0.6 * rng.normal(size=(k, 2)) for c, k in zip(centres, sizes, strict=True)])
n = 24

# %%
# The weights
# -----------
# The area of a point is its weight. At c_S = 1 the uniform weights, where the solver starts,
# are optimal and do not change. A small c_S requires a larger second moment in each
# direction than the population has. Only samples far from the origin can provide it, so the weights
# near the origin fall to zero; in more dimensions this can affect whole clusters.

figure, axes = plt.subplots(1, 3, figsize=(12, 4), sharey=True, layout="constrained")
for ax, c_S in zip(axes, (1.0, 0.7, 0.4), strict=True):
    selector = SkMMSelector(n, c_S=c_S, random_state=0).fit(X)
    s = selector.weights_
    ax.scatter(*X.T, s=5, color="0.8", linewidths=0)
    ax.scatter(*X.T, s=4000 * s, color="#0072B2", alpha=0.5, linewidths=0)
    ax.plot(0, 0, "k+", markersize=10)
    ax.set(title=f"c_S = {c_S}, {np.mean(s < 1e-3 / len(X)):.0%} of weights near zero")
plt.show()

# %%
# The roundings
# -------------
# All roundings start from the same weights, those of c_S = 1. "choice", which the published
# code uses, and "systematic" leave gaps and select neighbours. "spread" and "local_cube" keep the
# selected samples apart. "cube" preserves the second moment. "exemplar" selects the central sample
# of each group and gives it a weight (its area here). "cells", the default, selects one sample from
# each of n cells.

roundings = ["choice", "systematic", "cube", "spread", "local_cube", "exemplar", "cells"]
figure, axes = plt.subplots(2, 4, figsize=(12, 6.4), sharex=True, sharey=True, layout="constrained")
for ax, rounding in zip(axes.flat, roundings, strict=False):
    selector = SkMMSelector(n, rounding=rounding, random_state=0).fit(X)
    CoresetDisplay.from_selector(
        selector, X, ax=ax, weight_area=rounding == "exemplar", coreset_kw={"s": 34}
    )
    ax.set(title=rounding, xlabel="", ylabel="")
    ax.get_legend().remove()
axes[1, 3].axis("off")
axes[1, 3].legend(*ax.get_legend_handles_labels(), loc="center")
plt.show()

# %%
# Error of the second moment
# --------------------------
# The pictures above show a single seed. The next one shows the error of the second moment (the
# uncentred covariance), relative to its norm, over 20 seeds. In two dimensions and with so few
# samples, the default is *not* the best in this respect: its samples have equal weight and each
# comes from a different cell, small clusters included. The exemplars have weights that compensate
# for this. The advantage of the cells is that no region is left out.

moment = X.T @ X / len(X)


def error(rounding, seed):
    """Relative error of the weighted second moment of a coreset."""
    selector = SkMMSelector(n, rounding=rounding, random_state=seed).fit(X)
    weight = selector.sample_weight_ / selector.sample_weight_.sum()
    picks = X[selector.sample_indices_]
    return np.linalg.norm(picks.T * weight @ picks - moment) / np.linalg.norm(moment)


errors = [[error(rounding, seed) for seed in range(20)] for rounding in roundings]
figure, ax = plt.subplots(figsize=(8, 3.6), layout="constrained")
ax.boxplot(errors, orientation="horizontal", tick_labels=roundings, medianprops={"color": "black"})
ax.invert_yaxis()
ax.set(xlabel="relative error of the second moment, 20 seeds", xlim=(0, None))
plt.show()

# %%
# Why "choice" does not follow the weights
# ----------------------------------------
# Drawing samples one after the other without replacement does not give inclusion probabilities
# proportional to the weights: heavy samples are selected too rarely. Systematic sampling gives the
# required probabilities.

s = np.arange(1, 9) / 36
figure, ax = plt.subplots(figsize=(7, 3.6), layout="constrained")
ax.plot(np.arange(1, 9), 4 * s, color="black", label="n·s, required by the weights")
for draw, marker, color in ((choice, "s", "#D55E00"), (systematic, "o", "#0072B2")):
    rng = np.random.RandomState(0)
    picks = np.concatenate([draw(s, 4, rng) for _ in range(4000)])
    share = np.bincount(picks, minlength=8) / 4000
    ax.plot(np.arange(1, 9), share, marker, color=color, label=f'"{draw.__name__}"')
ax.set(xlabel="sample, s proportional to 1…8, n = 4", ylabel="selection frequency")
ax.legend()
plt.show()
