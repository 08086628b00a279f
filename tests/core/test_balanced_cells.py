"""Balanced cells: bounds on the masses, and parts against brute force; `_twins` has more."""

import itertools

import numpy as np
import pytest

from sklearn_skmm.core import _balanced_cells
from sklearn_skmm.core._allocation import share_out
from sklearn_skmm.core._balanced_cells import balanced_cells
from sklearn_skmm.core._balanced_means import merging_losses
from sklearn_skmm.core._bisection import Bounds, bisect


def rows(kind, rng, N=200):
    P = rng.normal(size=(N, 2))
    return {
        "one blob": lambda: P,
        "two scales": lambda: P * np.where(np.arange(N) < 0.6 * N, 1e-3, 10.0)[:, None],
        "decades": lambda: P * np.logspace(-12, 12, N)[:, None],
        "equal rows": lambda: np.zeros((N, 2)),
        "few distinct": lambda: P[rng.randint(4, size=N)],
    }[kind]()


KINDS = ["one blob", "two scales", "decades", "equal rows", "few distinct"]


@pytest.mark.parametrize(
    ("steps", "n"), [("one", 1), ("one", 3), ("one", 40), ("one", 199), ("two", 40), ("two", 150)]
)
@pytest.mark.parametrize("kind", KINDS)
def test_masses_are_within_the_bounds(n, kind, steps, monkeypatch):
    if steps == "two":
        monkeypatch.setattr(_balanced_cells, "FEW", 12)
        monkeypatch.setattr(_balanced_cells, "EACH", 4)
        monkeypatch.setattr(_balanced_cells, "MOST", 5)
    rng = np.random.RandomState(n)
    P = rows(kind, rng)
    for balance, dtype in (
        (1.0, np.float32),
        (1.5, np.float64),
        (4.0, np.float32),
        (np.inf, float),
    ):
        s = np.full(200, 1 / 200, dtype)
        cells = balanced_cells(P.astype(dtype), s, n, balance, np.random.RandomState(0))
        counts = np.bincount(cells.labels, minlength=n)
        assert counts.min() >= max(1, np.floor(200 / n / balance + 1e-6))
        assert counts.max() <= np.ceil(200 / n * balance - 1e-6)
        np.testing.assert_array_equal(cells.labels[cells.exemplars], np.arange(n))
        s = rng.dirichlet(np.full(200, 20.0))
        cells = balanced_cells(P, s, n, balance, np.random.RandomState(0))
        mass = np.bincount(cells.labels, weights=s, minlength=n)
        assert mass.min() > 0
        assert mass.min() >= 1 / (balance * n) - 3 * s.max()
        assert mass.max() <= balance / n + 3 * s.max()


def test_infinite_balance_gives_cells_of_nearest_means():
    P = rows("one blob", np.random.RandomState(0))
    cells = balanced_cells(P, np.full(200, 1 / 200), 10, np.inf, np.random.RandomState(0))
    means = np.array([P[cells.labels == c].mean(axis=0) for c in range(10)])
    own = np.linalg.norm(P[:, None] - means, axis=2)
    assert np.mean(own.argmin(axis=1) == cells.labels) > 0.9


@pytest.mark.parametrize("seed", range(5))
def test_counts_are_shared_out_like_the_best_of_all(seed):
    rng = np.random.RandomState(seed)
    ideal, least = rng.exponential(size=4), rng.randint(1, 3, size=4)
    most = least + rng.randint(0, 5, size=4)
    for n in range(least.sum(), most.sum() + 1):
        counts = share_out(ideal, least, most, n)
        assert counts.sum() == n
        assert np.all((least <= counts) & (counts <= most))
        # No unit can move to a cell that has less for its ideal.
        for a, b in itertools.permutations(range(4), 2):
            if counts[a] > least[a] and counts[b] < most[b]:
                assert ideal[b] / (counts[b] + 1) <= ideal[a] / (counts[a] - 1 or 1e-9) + 1e-9


@pytest.mark.parametrize("n", [1, 2, 5, 9])
def test_bisection_of_equal_bounds_gives_equal_masses(n):
    P = np.random.RandomState(0).normal(size=(9 * n, 3))
    labels = bisect(P, np.ones(9 * n), n, Bounds(9.0, 9.0), np.random.RandomState(0))
    assert np.bincount(labels).tolist() == [9] * n


def test_merging_losses_are_growths_of_the_sum_of_squares():
    rng = np.random.RandomState(0)
    parts = [rng.normal(size=(size, 2)) + rng.normal(size=2) * 5 for size in (3, 5, 9, 4)]

    def scatter(X):
        return np.square(X - X.mean(axis=0)).sum()

    means = np.array([part.mean(axis=0) for part in parts])
    losses = merging_losses(means, np.array([3.0, 5.0, 9.0, 4.0]), 100.0)
    for a, part in enumerate(parts):
        distances = np.linalg.norm(means - means[a], axis=1)
        b = np.argsort(distances)[1]
        both = scatter(np.concatenate([part, parts[b]]))
        assert losses[a] == pytest.approx(both - scatter(part) - scatter(parts[b]))


def test_equal_rows_far_from_the_origin():
    """Their sums of squares are rounding errors, which may be negative."""
    for seed in range(30):
        rng = np.random.RandomState(seed)
        P = np.repeat(rng.normal(size=(1, 50)) * 2.0**20, 12, axis=0).astype(np.float32)
        n = rng.randint(2, 12)
        cells = balanced_cells(P, np.full(12, 1 / 12, np.float32), n, np.inf, rng)
        assert len(np.unique(cells.labels)) == n
