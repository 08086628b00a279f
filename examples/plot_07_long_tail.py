"""
Rare classes in a coreset
=========================

In a long-tailed pool, random sampling selects few or no samples of the rare classes, and without
labels nobody knows which samples these are. Does selection on the features find them?
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import recall_score
from sklearn.model_selection import train_test_split

from sklearn_skmm import KCenterSelector, KMeansSelector, SkMMSelector, UniformSelector

# %%
# Long-tailed digits
# ------------------
# The pool keeps about 0.6 times as many images of the digit k as of k - 1. The test set is
# balanced.

X, y = load_digits(return_X_y=True)
X_rest, X_test, y_rest, y_test = train_test_split(
    X / 16, y, test_size=0.3, stratify=y, random_state=0
)
keep = [np.flatnonzero(y_rest == k)[: max(3, round(120 * 0.6**k))] for k in range(10)]
keep = np.concatenate(keep)
X_pool, y_pool = X_rest[keep], y_rest[keep]
pool = np.bincount(y_pool)
print(len(X_pool), "samples:", *pool)

# %%
# Select, label and train
# -----------------------

n, seeds = 40, range(10)
selectors = {
    "SkMM (default)": SkMMSelector(n),
    "k-means": KMeansSelector(n),
    "k-center": KCenterSelector(n),
    "uniform": UniformSelector(n),
}
rows = []
for name, selector in selectors.items():
    for seed in seeds:
        picks = selector.set_params(random_state=seed).fit_transform(X_pool)
        model = LogisticRegression(C=10, max_iter=1000).fit(X_pool[picks], y_pool[picks])
        recall = recall_score(y_test, model.predict(X_test), average=None, zero_division=0)
        count = np.bincount(y_pool[picks], minlength=10)
        rows += [(name, seed, k, count[k], recall[k]) for k in range(10)]
table = pd.DataFrame(rows, columns=["selector", "seed", "digit", "count", "recall"])

# %%
# Classes in the coreset and recall
# ---------------------------------

styles = {
    "SkMM (default)": ("#0072B2", "o", "-"),
    "k-means": ("#009E73", "^", "-."),
    "k-center": ("#CC79A7", "D", ":"),
    "uniform": ("#D55E00", "s", "--"),
}
means = table.groupby(["selector", "digit"])[["count", "recall"]].mean()
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.4), layout="constrained")
left.bar(range(10), n * pool / pool.sum(), color="0.88", label="in proportion to the pool")
for name, (color, marker, line) in styles.items():
    style = {"color": color, "marker": marker, "linestyle": line, "label": name}
    left.plot(range(10), means.loc[name, "count"], **style)
    right.plot(range(10), 100 * means.loc[name, "recall"], **style)
left.set(ylabel=f"selected of n = {n}, mean of {len(seeds)} seeds", title="Coreset")
right.set(ylabel="recall on balanced test images, %", title="Classifier trained on the coreset")
for ax in (left, right):
    ax.set_xticks(range(10), [f"{k}\n({pool[k]})" for k in range(10)])
    ax.set_xlabel("digit (samples in the pool)")
left.legend()
plt.show()

totals = table.groupby(["selector", "seed"]).agg(
    classes=("count", lambda counts: (counts > 0).sum()), recall=("recall", "mean")
)
summary = totals.groupby("selector").agg(["mean", "std"])
print("classes found of 10, and mean recall over classes, over", len(seeds), "seeds")
print(summary.round(2).to_string())

# %%
# The three methods that use the features find more of the rare classes than random sampling, and
# reach a higher recall with the same number of labels. k-center finds the most, because it
# considers only distances and not how many samples lie in a region. This is an advantage here, and
# a disadvantage where distant samples are outliers. The default stays closer to the pool's class
# proportions, at the cost of the rarest classes.
