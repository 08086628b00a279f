"""
Ten million points
==================

The pool has ten million samples in two dimensions: clouds of very different size, a ring and a thin
thread. The selector reads them block by block and keeps a few vectors of N entries. Random sampling
selects mostly from the dense regions; the cells of `SkMMSelector` ensure that every region is
represented.
"""

import time

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LogNorm
from sklearn.metrics import pairwise_distances_argmin_min

from sklearn_skmm import SkMMSelector, UniformSelector

N, n = 10_000_000, 300
rng = np.random.default_rng(0)


def cloud(share, centre, spread):
    """Return a fraction of the N points, around a centre."""
    points = rng.standard_normal(size=(int(share * N), 2), dtype=np.float32)
    return points * np.float32(spread) + np.asarray(centre, dtype=np.float32)


angle = rng.uniform(0, 2 * np.pi, size=int(0.05 * N)).astype(np.float32)
ring = 6 * np.column_stack([np.cos(angle), np.sin(angle)])
ring += 0.15 * rng.standard_normal(size=ring.shape, dtype=np.float32)
along = rng.uniform(-9, 9, size=int(0.02 * N)).astype(np.float32)
thread = np.column_stack(
    [along, np.sin(along) + 0.05 * rng.standard_normal(along.shape, np.float32)]
)
X = np.concatenate(
    [cloud(0.6, (-2, 2), 0.7), cloud(0.25, (3, -2), 0.4), cloud(0.08, (2, 3.5), 1), ring, thread]
)
print(f"{len(X):,} points, {X.nbytes / 2**20:.0f} MiB")

# %%
# Select
# ------
# In two dimensions the second moment (the uncentred covariance) is only three numbers. The
# selection therefore depends almost entirely on the cells, each of which is represented by one
# sample.

picks = {}
for name, selector in {
    "uniform": UniformSelector(n, random_state=0),
    "SkMM": SkMMSelector(n, random_state=0),
}.items():
    start = time.perf_counter()
    picks[name] = selector.fit_transform(X)
    print(f"{name}: {time.perf_counter() - start:.1f} s")

# %%
# The selected samples
# --------------------
# Grey shows the density of the ten million points on a logarithmic scale; dots are selected
# samples. The mean distance to the nearest selected sample, estimated from a hundred thousand
# points, measures how well the points are covered.

some = X[rng.integers(len(X), size=100_000)]
figure, axes = plt.subplots(1, 2, figsize=(10, 4.6), sharex=True, sharey=True, layout="constrained")
for ax, (name, chosen), color in zip(axes, picks.items(), ["#D55E00", "#0072B2"], strict=True):
    counts, x, y = np.histogram2d(X[:, 0], X[:, 1], bins=400)
    ax.pcolormesh(
        x, y, np.where(counts > 0, counts, np.nan).T, cmap="Greys", norm=LogNorm(vmin=0.3)
    )
    ax.scatter(*X[chosen].T, s=13, color=color, edgecolor="white", linewidth=0.4)
    distance = pairwise_distances_argmin_min(some, X[chosen])[1]
    ax.set_title(f"{name}: {n} of {len(X):,}, mean distance {distance.mean():.2f}")
    ax.set(aspect="equal", xticks=[], yticks=[])
plt.show()

# %%
# The page *Scaling* of the documentation has the time and memory in 64 dimensions, from a hundred
# thousand samples to ten million.
