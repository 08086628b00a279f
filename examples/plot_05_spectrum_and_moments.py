"""
How many dimensions a sketch needs, and which directions a coreset covers
=========================================================================

The sketch dimension m and the constant c_S are the two numbers that moment matching asks for. Both
can be looked at before anything is labelled.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from sklearn_skmm import (
    GradientSketcher,
    MomentMatchDisplay,
    SkMMSelector,
    SpectrumDisplay,
    UniformSelector,
)
from sklearn_skmm.datasets import make_gmm_regression
from sklearn_skmm.diagnostics import effective_c_S

# %%
# Two spectra
# -----------
# The intrinsic dimension is where the eigenvalues that remain add up to no more than 1 / N of all.
# The theory asks for a sketch of eleven times as many dimensions.
#
# On the left, a Gaussian mixture in 400 dimensions: eight directions hold nearly everything, and a
# sketch can be far smaller than the data. On the right, 64 pixels of digits: the spectrum falls
# slowly, and eleven times its intrinsic dimension is more than there are pixels. Nothing is to be
# gained there by sketching the pixels as the theory asks; a smaller m is a gamble, which
# the search over m in another example settles by its outcome.

mixture = make_gmm_regression(1000, 400, random_state=0).X
digits = load_digits().data / 16
figure, axes = plt.subplots(1, 2, figsize=(12, 4.6), layout="constrained")
for ax, name, X in zip(axes, ("Gaussian mixture", "digits"), (mixture, digits), strict=True):
    display = SpectrumDisplay.from_data(X, ax=ax)
    r = display.intrinsic_dimension_
    ax.set_title(f"{name}: {X.shape[1]} features, 11 × {r} = {11 * r}")
plt.show()

# %%
# The spectrum after sketching
# ----------------------------
# A fitted selector shows what it saw. A sketch of m dimensions has no more than m directions: if it
# is too small, the intrinsic dimension comes out as about m, and says that it should be larger.

figure, axes = plt.subplots(1, 2, figsize=(12, 4.6), sharey=True, layout="constrained")
for ax, m in zip(axes, (4, 88), strict=True):
    sketch = GradientSketcher(m=m, random_state=0).fit_transform(mixture)
    SpectrumDisplay.from_estimator(SkMMSelector(40, random_state=0).fit(sketch), ax=ax)
    ax.set_title(f"Gaussian mixture, sketched to m = {m}")
plt.show()

# %%
# What a coreset leaves uncovered
# -------------------------------
# A coreset of 120 digits should have at least the second moment of all of them, divided by c_S, in
# each direction. A uniform draw misses by chance, in the small directions by a lot. The titles have
# the smallest c_S that holds in the leading directions, as many as the intrinsic dimension, and in
# all that lies between them.

selectors = {
    "uniform": UniformSelector(120, random_state=0),
    "SkMM (default)": SkMMSelector(120, random_state=0),
    "SkMM, c_S = 0.6": SkMMSelector(120, c_S=0.6, random_state=0),
}
leading = digits @ np.linalg.eigh(digits.T @ digits)[1][:, -r:]
figure, axes = plt.subplots(3, 1, figsize=(9, 9), sharex=True, sharey=True, layout="constrained")
for ax, (name, selector) in zip(axes, selectors.items(), strict=True):
    selector.fit(digits)
    MomentMatchDisplay.from_estimator(selector, digits, ax=ax)
    worst = effective_c_S(leading, selector.sample_indices_)
    ax.set(title=f"{name}: the smallest c_S of the {r} leading directions is {worst:.2g}")
    ax.legend(loc="upper left", ncols=3)
    ax.label_outer()
plt.show()

# %%
# In the directions with large eigenvalues, which are what it weighs, the default stays closest to
# the line. Further on it is a little short throughout, where the uniform draw scatters around the
# line: the middles of cells have a smaller second moment than their members. The smallest
# directions are left uncovered by all three. A small c_S raises the line, pulls the first direction
# up, lets most of the others fall, and leaves next to nothing in one that lies between them.
#
# The smallest c_S that holds in *all* directions is infinite for all three, for the picks do not
# span what the pool spans: few images light up the pixels at the edge. The relaxation that makes
# the problem quick looks at each eigen-direction alone and does not see this.
