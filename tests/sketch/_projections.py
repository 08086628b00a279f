"""Random projections of every kind, and statistical checks of samples."""

import numpy as np

from sklearn_skmm.sketch._product import ProductProjection
from sklearn_skmm.sketch._projection import BlockProjection, projection_for

KINDS = ["gaussian", "sparse_sign", "product", "block"]


def make_projection(kind, r, m, seed):
    """Return a projection of this kind, for an even r of at least 8."""
    if kind == "product":
        return ProductProjection(r // 2, 2, m, (seed, 0), (seed, 1))
    if kind == "block":
        a, b = r // 2, r // 8 * 2
        parts = [("gaussian", a), ("product", b), ("sparse_sign", r - a - b)]
        return BlockProjection([make_projection(part, size, m, seed) for part, size in parts])
    return projection_for(kind, r, m, seed)


def leaves(projection):
    return getattr(projection, "parts", [projection])


def assert_mean(samples, expected, n_errors=5):
    """Assert that the mean over the first axis is within n_errors standard errors of expected."""
    samples = np.asarray(samples)
    error = samples.std(axis=0, ddof=1) / np.sqrt(len(samples))
    assert np.all(np.abs(samples.mean(axis=0) - expected) <= n_errors * error + 1e-12)


def assert_uniform(codes, n_codes):
    """Assert that codes are uniform on 0..n_codes - 1, by Pearson's statistic."""
    expected = len(codes) / n_codes
    assert expected > 20
    chi2 = np.sum((np.bincount(codes, minlength=n_codes) - expected) ** 2 / expected)
    degrees = n_codes - 1
    assert abs(chi2 - degrees) < 5 * np.sqrt(2 * degrees)


def product_variance(A, terms=1):
    """Return m Var ‖gΓ‖² of a product projection, by the formula of its docstring."""
    norms4 = [np.sum(np.sum(A**2, axis=axis) ** 2) for axis in (0, 1)]
    gram4 = np.sum((A @ A.T) ** 2)
    excess = 6 * gram4 - 6 * sum(norms4) + 4 * np.sum(A**4)
    return 2 * np.sum(A**2) ** 2 + excess / terms


RNG = np.random.RandomState(5)
DELTA, ACTIVATION = (v / np.linalg.norm(v) for v in RNG.uniform(0.5, 1.5, size=(2, 4)))
GRADIENTS = {
    "rank one": np.outer(DELTA, ACTIVATION),
    "flat rank one": np.full((4, 4), 0.25),
    "rank two": np.outer(DELTA, ACTIVATION) + np.outer(ACTIVATION, [0.3, -1, 0.2, 0.5]),
    "full rank": np.linalg.qr(RNG.normal(size=(4, 4)))[0] / 2,
    "row": ACTIVATION[None],
    "column": DELTA[:, None],
}
