"""
Active learning with what is labelled already
=============================================

In active learning, a batch of samples is labelled, a model is fitted, and the next batch is
selected. Samples that are labelled already are passed as ``selected``. How uncertain the model is
can be passed as ``sample_weight``: then the selection represents the samples that the model does
not know, and still covers them.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

from sklearn_skmm import (
    FacilityLocationSelector,
    SkMMSelector,
    UncertaintySelector,
    UniformSelector,
)

# %%
# One round
# ---------
# The uncertainty is one minus the margin, the difference of the two largest probabilities.
# Facility location weighted by it is the objective of UHerding (Bae et al., ICLR 2025), and without
# weights that of MaxHerding.


def uncertainty(model, X):
    """Return one minus the margin of each sample."""
    proba = np.sort(model.predict_proba(X), axis=1)
    return 1.0 - (proba[:, -1] - proba[:, -2])


def select(method, X, labelled, model, batch, seed):
    """Return the positions of the next samples to label."""
    given = {"selected": labelled}
    if model is not None and "uncertainty" in method:
        given["sample_weight"] = uncertainty(model, X)
    if method == "margin sampling" and model is not None:
        selector = UncertaintySelector(batch, model, criterion="margin")
    elif method.startswith("facility location"):
        selector = FacilityLocationSelector(batch, random_state=seed)
    elif method.startswith("SkMM"):
        selector = SkMMSelector(batch, random_state=seed)
    else:
        selector = UniformSelector(batch, random_state=seed)
    return selector.fit_transform(X, **given)


# %%
# Ten rounds
# ----------
# In each round ten images are labelled. The curves are means over seeds.

METHODS = {
    "uniform": ("#7d7d7d", "-"),
    "margin sampling": ("#b07aa1", "-"),
    "SkMM": ("#1f6fb4", "-"),
    "SkMM, uncertainty": ("#1f6fb4", "--"),
    "facility location": ("#d9822b", "-"),
    "facility location, uncertainty": ("#d9822b", "--"),
}
rounds, batch, seeds = 10, 10, 3
X, y = load_digits(return_X_y=True)
accuracy = {method: np.zeros((seeds, rounds)) for method in METHODS}
for method, curves in accuracy.items():
    for seed in range(seeds):
        X_pool, X_test, y_pool, y_test = train_test_split(
            X / 16, y, test_size=0.4, random_state=seed
        )
        labelled, model = np.zeros(len(X_pool), dtype=bool), None
        for t in range(rounds):
            labelled[select(method, X_pool, labelled, model, batch, 100 * seed + t)] = True
            model = LogisticRegression(max_iter=300).fit(X_pool[labelled], y_pool[labelled])
            curves[seed, t] = model.score(X_test, y_test)

# %%
# The curves
# ----------
# With few labels it matters most that the batches cover the data without repetition.
# Margin sampling alone asks for similar images, which the model confuses, and needs many labels
# before its margins mean something. The weights help once the model knows something.

figure, axes = plt.subplots(figsize=(7.5, 4.2), layout="constrained")
labels = batch * np.arange(1, rounds + 1)
for method, (colour, style) in METHODS.items():
    axes.plot(labels, accuracy[method].mean(axis=0), style, color=colour, label=method)
axes.set(xlabel="labelled images", ylabel="test accuracy")
axes.legend(loc="lower right")
plt.show()

# %%
# The mean over the rounds, which is the area under the curve:

for method, curves in accuracy.items():
    print(f"{method:32}mean accuracy {curves.mean():.3f}")
