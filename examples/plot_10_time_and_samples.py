"""
Time against the number of samples
==================================

Each step of a selection takes time proportional to N, so that millions of samples are feasible.
Here N goes up to a quarter of a million, which takes seconds. The page *Scaling* of the
documentation has times for ten million, recorded by ``examples/benchmarks/scale.py``.
"""

import time

import matplotlib.pyplot as plt
import numpy as np

from sklearn_skmm import GradientSketcher, KMeansSelector, SkMMSelector, UniformSelector

sizes = [4_000, 16_000, 64_000, 256_000]
n, m = 100, 32
K_MEANS_UP_TO = 64_000  # to keep the example short
rng = np.random.default_rng(0)
centres = 3 * rng.normal(size=(50, 128)).astype(np.float32)


def data(N):
    """Return N samples of a mixture of 50 clusters in 128 dimensions."""
    X = rng.standard_normal(size=(N, 128), dtype=np.float32)
    X += centres[rng.integers(len(centres), size=N)]
    return X


# %%
# Time each step
# --------------

sketcher = GradientSketcher(m=m, random_state=0)
selectors = {
    "SkMM, cells (default)": SkMMSelector(n, random_state=0),
    "SkMM, systematic": SkMMSelector(n, rounding="systematic", random_state=0),
    "k-means": KMeansSelector(n, random_state=0),
    "uniform": UniformSelector(n, random_state=0),
}
seconds = {name: [] for name in ("sketch", *selectors)}


def clock(name, function, *args):
    """Append the seconds that a call takes, and return its result."""
    start = time.perf_counter()
    result = function(*args)
    seconds[name].append(time.perf_counter() - start)
    return result


for N in sizes:
    X = data(N)
    sketch = clock("sketch", sketcher.fit_transform, X)
    for name, selector in selectors.items():
        if name != "k-means" or N <= K_MEANS_UP_TO:
            clock(name, selector.fit, sketch)

# %%
# A straight line of slope one
# ----------------------------
# On logarithmic axes, time proportional to N is a line of slope one. Small N lie above the line,
# because there the costs that do not depend on N dominate.

styles = ["#000000", "#0072B2", "#56B4E9", "#009E73", "#D55E00"]
figure, ax = plt.subplots(figsize=(8.5, 5), layout="constrained")
for (name, taken), color, marker in zip(seconds.items(), styles, "*ov^s", strict=True):
    ax.plot(sizes[: len(taken)], taken, color=color, marker=marker, label=name)
guide = np.array(sizes, dtype=float)
least = min(min(taken) for taken in seconds.values())
ax.plot(guide, 0.5 * least * guide / guide[0], color="0.6", linestyle="--", label="slope one")
ax.set(
    xscale="log",
    yscale="log",
    xlabel="N, samples",
    ylabel="seconds",
    title=f"Select n = {n} by a sketch of m = {m} dimensions",
)
ax.set_xticks(sizes, [f"{N:,}" for N in sizes])
ax.minorticks_off()
ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0)
plt.show()

for name, taken in seconds.items():
    print(f"{name:22} {taken[-1]:7.3f} s at N = {sizes[len(taken) - 1]:,}")
