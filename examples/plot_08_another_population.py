"""
Select for another population
=============================

The pool contains the samples that can be labelled; the population on which the model will be used
may be different. Fit a selector on unlabelled samples of this *target* population, then call
`transform` on the pool. It selects samples of the pool that match the moments of the target, much
as `KMeans.predict` assigns new samples to fitted centres.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from sklearn_skmm import MomentMatchDisplay, SkMMSelector, UniformSelector

# %%
# A pool of all digits, a target of four
# --------------------------------------
# The pool has equally many of all digits. In the target nearly all digits are 1, 4, 7 or 9.

X, y = load_digits(return_X_y=True)
X = X / 16
rng = np.random.RandomState(0)
order = rng.permutation(len(X))
pool, rest = order[:900], order[900:]
wanted = np.isin(y, [1, 4, 7, 9])
share = np.where(wanted[rest], 0.95 / 4, 0.05 / 6)
share /= share.sum()
target = rng.choice(rest, size=400, replace=False, p=share)
target, test = target[:150], target[150:]
shares = wanted[pool].mean(), wanted[test].mean()
print(f"wanted digits in the pool: {shares[0]:.0%}, in the target: {shares[1]:.0%}")

# %%
# Three ways to select
# --------------------

n, seeds = 40, range(10)
rows, picked = [], {}
for seed in seeds:
    for_pool = SkMMSelector(n, random_state=seed).fit(X[pool])
    for_target = SkMMSelector(n, random_state=seed).fit(X[target])
    picked = {
        "uniform": UniformSelector(n, random_state=seed).fit_transform(X[pool]),
        "SkMM, fitted on the pool": for_pool.sample_indices_,
        "SkMM, fitted on the target": for_target.transform(X[pool]),
    }
    for name, picks in picked.items():
        picks = pool[picks]
        model = LogisticRegression(C=10, max_iter=1000).fit(X[picks], y[picks])
        rows.append((name, seed, wanted[picks].mean(), model.score(X[test], y[test])))
table = pd.DataFrame(rows, columns=["selected by", "seed", "wanted", "accuracy"])
means = 100 * table.groupby("selected by", sort=False)[["wanted", "accuracy"]].mean()
means["std of accuracy"] = 100 * table.groupby("selected by")["accuracy"].std()
print(means.round(1).to_string())

# %%
# Which moments match
# -------------------
# Second moments (uncentred covariances) along the eigenvectors of the target's, for the last seed.
# Ratios above 3 are cut off.

figure, axes = plt.subplots(3, 1, figsize=(9, 8.5), sharex=True, sharey=True, layout="constrained")
for ax, (name, picks) in zip(axes, picked.items(), strict=True):
    MomentMatchDisplay.from_indices(X[pool], picks, reference=X[target], ax=ax)
    row = means.loc[name]
    ax.set_title(f"{name}: {row['wanted']:.0f} % wanted digits, accuracy {row['accuracy']:.1f} %")
    ax.legend(loc="upper left", ncols=3)
    ax.set_ylim(0, 3)
    ax.label_outer()
plt.show()

# %%
# Fitted on the target, the selector selects more of the wanted digits, and the largest directions
# lie on the line. It also selects other digits, because the moments of samples can match those of
# the target even if the samples themselves look different. Within the spread of the seeds, the
# accuracy is no higher than for the selector fitted on the pool. That coreset already contains
# enough of each digit; random sampling does not provide this.
