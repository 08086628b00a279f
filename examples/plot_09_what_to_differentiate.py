"""
Finetuning curves, and what to differentiate
============================================

A network pretrained on the digits 0 to 4 is finetuned on n labelled images of 5 to 9. The images
are selected by sketched gradients of the network. The parameter `target` of `GradientSketcher` says
which quantity is differentiated. All runs start from the same weights and take the same number of
steps.
"""

import copy

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sklearn_skmm import GradientSketcher, SkMMSelector

torch.manual_seed(0)
torch.set_num_threads(1)  # the network is too small for more to help

X, y = load_digits(return_X_y=True)
X = torch.from_numpy((X / 16).astype(np.float32))
y = torch.from_numpy(y)
new = y >= 5
pool, test = train_test_split(np.flatnonzero(new), test_size=0.4, stratify=y[new], random_state=0)
STEPS, EVERY = 120, 6


def train(model, members, steps, lr):
    """Train on the members with AdamW and return the curve of the test accuracy, in per cent."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=1e-3)
    curve = []
    for step in range(steps + 1):
        if step % EVERY == 0:
            with torch.no_grad():
                curve.append(100 * float((model(X[test]).argmax(1) == y[test]).float().mean()))
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(X[members]), y[members]).backward()
        optimizer.step()
    return curve


# %%
# Pretrain
# --------

pretrained = torch.nn.Sequential(torch.nn.Linear(64, 48), torch.nn.ReLU(), torch.nn.Linear(48, 10))
_ = train(pretrained, np.flatnonzero(~new), steps=150, lr=1e-2)

# %%
# Select by four kinds of gradients, and at random
# ------------------------------------------------
# "label" serves as a reference, not as a method: it needs the labels of the pool.

n, seeds = 40, range(6)
curves = {"uniform": []}
curves |= {target: [] for target in ("output", "predicted", "sampled", "label")}
for seed in seeds:
    for target, runs in curves.items():
        if target == "uniform":
            picks = np.random.RandomState(seed).choice(len(pool), n, replace=False)
        else:
            sketcher = GradientSketcher(m=64, model=pretrained, target=target, random_state=seed)
            sketch = sketcher.fit_transform(X[pool], y[pool] if target == "label" else None)
            picks = SkMMSelector(n, random_state=seed).fit_transform(sketch)
        runs.append(train(copy.deepcopy(pretrained), pool[picks], STEPS, lr=1e-2))
everything = train(copy.deepcopy(pretrained), pool, STEPS, lr=1e-2)

# %%
# The curves
# ----------

styles = {
    "output": ("#0072B2", "o", "-"),
    "label": ("#009E73", "^", "-."),
    "sampled": ("#E69F00", "v", ":"),
    "predicted": ("#CC79A7", "D", ":"),
    "uniform": ("#D55E00", "s", "--"),
}
steps = np.arange(0, STEPS + 1, EVERY)
figure, ax = plt.subplots(figsize=(8.5, 5), layout="constrained")
ax.plot(steps, everything, color="0.5", linewidth=3, label=f"all {len(pool)} labelled, one run")
for target, (color, marker, line) in styles.items():
    runs = np.array(curves[target])
    label = target if target == "uniform" else f'SkMM, target="{target}"'
    style = {"color": color, "marker": marker, "linestyle": line, "markevery": 2, "label": label}
    ax.plot(steps, runs.mean(axis=0), **style)
ax.set(
    xlabel="finetuning step",
    ylabel="test accuracy on the digits 5 to 9, %",
    title=f"n = {n} of {len(pool)} labelled, mean of {len(seeds)} seeds",
)
ax.legend()
plt.show()

print(f"after {STEPS} steps, mean ± std over {len(seeds)} seeds")
for target in styles:
    final = np.array(curves[target])[:, -1]
    difference = final - np.array(curves["uniform"])[:, -1]
    print(
        f"{target:10} {final.mean():.1f} ± {final.std():.1f}, over uniform {difference.mean():+.1f}"
    )

# %%
# Without labels, the gradient of the output gives as good a selection as the gradient of the loss
# at the true labels. With the loss at classes that the network samples or predicts, the selection
# is no better than random sampling. The network knows none of these digits but is confident about
# many of them, and where it is confident, this gradient nearly vanishes.
