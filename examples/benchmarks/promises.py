"""Check the theory's bounds, inclusion probabilities and certificates on simulated data.

The simulated data satisfy the assumptions of the guarantees.

*Bounds.* Each seed gives one data set: N = 2,000 samples of a linear model with noise, either with
eigenvalues that fall by a factor of five or in six clusters, and a noise level between 0.01 and 1.
The theory bounds the expected excess risk of ridge regression on the coreset, with
alpha = sigma² / ‖θ*‖² in scikit-learn's units. The bound is compared with this expectation in
closed form, for the θ* that makes it largest ("worst" in the columns) and for a random θ*. `holds`
is the fraction of seeds in which the worst one is within the bound. `at_least` is the lower 95 %
confidence limit of that fraction. `one_draw_holds` uses one realisation of the noise instead of the
expectation, for which nothing is guaranteed. "sketch" is the bound of the paper's theorem on
sketches, (c_S / n) (sigma² m + tr(Σ) ‖θ*‖²), with the theorem's unspecified constant set to one and
the smallest c_S for the sketch. `premises` is the fraction of seeds in which m is as large as the
theorem requires.

*Draws.* The selection frequency of each of 60 samples is compared with its inclusion probability,
and four totals estimated with the weights are compared with the true ones, in standard errors. The
column after each is the limit that a correct implementation exceeds in 1 % of rows. The rows
without a guarantee show what a violation looks like.

*Certificates.* For small pools of four kinds, the optimum is found by trying all subsets. For the
relaxation, it is found by a non-negative least squares solver over all vertices of the feasible
set.

    pip install -c constraints.txt -e '.[benchmark]'
    OMP_NUM_THREADS=1 python examples/benchmarks/promises.py
"""

import argparse
import warnings
from itertools import combinations

import numpy as np
import pandas as pd
from _record import record
from _small_pools import relaxed_minimum, small_pool
from scipy import linalg, stats
from scipy.spatial.distance import cdist
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Ridge

import sklearn_skmm as s
from sklearn_skmm import diagnostics

N, R, M = 2000, 200, 80
SELECTORS = {"SkMM (default)": s.SkMMSelector, "uniform": s.UniformSelector}
SIZES = {"decaying": (10, 40, 160), "clusters": (10, 40, 160), "sketch": (100, 200, 400)}


def gradients(kind, rng):
    """Draw gradients G of low intrinsic dimension."""
    if kind == "clusters":
        weight = rng.dirichlet(np.ones(6)) * 0.9 + 0.1 / 6
        labels = rng.choice(6, size=N, p=weight)
        return rng.normal(size=(6, R))[labels] + 0.02 * rng.normal(size=(N, R))
    # The floor adds up to less than a fraction 1 / N of the trace.
    values = np.maximum(0.2 ** np.arange(R), 5e-7)
    return rng.normal(size=(N, R)) * np.sqrt(values)


class Regression:
    """Ridge regression on a coreset, for a linear model with noise and ‖θ*‖ = 1."""

    def __init__(self, G, picks, sigma):
        self.G, self.picks, self.sigma = G, picks, sigma
        self.moment = G.T @ G / len(G)
        of_S = G[picks].T @ G[picks] / len(picks)
        alpha = sigma**2 / len(picks)
        inverse = linalg.inv(of_S + alpha * np.eye(G.shape[1]))
        self.loss = alpha**2 * inverse @ self.moment @ inverse  # bias: θ*ᵀ loss θ*
        noise = np.trace(self.moment @ inverse @ of_S @ inverse)
        self.variance = sigma**2 / len(picks) * noise

    def worst(self):
        """Return the expected excess risk for the θ* that makes it largest."""
        last = len(self.loss) - 1
        largest = linalg.eigh(self.loss, eigvals_only=True, subset_by_index=[last, last])
        return self.variance + largest[0]

    def expected(self, theta):
        return self.variance + theta @ self.loss @ theta

    def one_draw(self, theta, rng):
        """Return the excess risk of scikit-learn's Ridge on labels with random noise."""
        X = self.G[self.picks]
        y = X @ theta + self.sigma * rng.normal(size=len(X))
        model = Ridge(alpha=self.sigma**2, fit_intercept=False).fit(X, y)
        error = model.coef_ - theta
        return error @ self.moment @ error


def sketch_bound(G, sketch, picks, sigma):
    """Return the bound of the theorem on sketches, and whether m is as large as it requires."""
    trace, n = np.square(G).sum() / len(G), len(picks)
    rank = diagnostics.intrinsic_dimension(G)
    least = np.sort(linalg.eigvalsh(G[picks] @ G[picks].T / n))[::-1][int(np.ceil(1.1 * rank)) - 1]
    c_S = diagnostics.effective_c_S(sketch, picks)
    premises = max(np.sqrt(trace / least), 11 * rank) <= sketch.shape[1]
    return c_S / n * (sigma**2 * sketch.shape[1] + trace), premises


def bounds(seeds):
    """Return one row for each bound, selector and n."""
    rows = []
    for seed in range(seeds):
        for kind in ("decaying", "clusters"):
            rng = np.random.RandomState(seed)
            G = gradients(kind, rng)
            sketch = s.GradientSketcher(m=M, random_state=seed).fit_transform(G)
            theta = rng.normal(size=R)
            theta /= np.linalg.norm(theta)
            sigma = 10 ** rng.uniform(-2, 0)
            tasks = [("subspace", kind, n) for n in SIZES[kind]]
            if kind == "decaying":
                tasks += [("sketch", kind, n) for n in SIZES["sketch"]]
            for bound, _, n in tasks:
                for name, cls in SELECTORS.items():
                    picks = cls(n, random_state=seed).fit_transform(sketch)
                    regression = Regression(G, picks, sigma)
                    if bound == "sketch":
                        limit, premises = sketch_bound(G, sketch, picks, sigma)
                    else:
                        limit = diagnostics.excess_risk_bound(G, picks, sigma=sigma)
                        premises = True
                    risks = (
                        regression.worst(),
                        regression.expected(theta),
                        regression.one_draw(theta, rng),
                    )
                    rows.append((bound, kind, name, n, premises, *(r / limit for r in risks)))
    columns = ["bound", "data", "selector", "n", "premises", "worst", "random", "draw"]
    ratios = pd.DataFrame(rows, columns=columns)
    ratios["holds"], ratios["one_draw_holds"] = ratios["worst"] <= 1, ratios["draw"] <= 1
    table = (
        ratios.groupby(["bound", "data", "selector", "n"], sort=False)
        .agg(
            seeds=("worst", "size"),
            premises=("premises", "mean"),
            holds=("holds", "mean"),
            worst_median=("worst", "median"),
            worst_max=("worst", "max"),
            random_median=("random", "median"),
            random_max=("random", "max"),
            one_draw_holds=("one_draw_holds", "mean"),
        )
        .reset_index()
    )
    table.insert(
        7, "at_least", [proved(h, n) for h, n in zip(table.holds, table.seeds, strict=True)]
    )
    return table.sort_values("bound", ascending=False, kind="stable")


def proved(share, n):
    """Return the lower limit of the one-sided Clopper–Pearson interval at 95 %."""
    count = round(share * n)
    return float(stats.beta.ppf(0.05, count, n - count + 1)) if count else 0.0


def skewed(rng):
    """Draw a small pool with samples of very different lengths, targets and three classes."""
    X = rng.normal(size=(60, 6)) * [3, 1, 1, 0.5, 0.5, 0.2] * rng.lognormal(0, 0.5, size=(60, 1))
    return X, X @ rng.normal(size=6) + rng.standard_t(4, size=60), np.repeat([0, 1, 2], 20)


def drawing():
    """Return name -> (selector, whether its weights and probabilities are guaranteed)."""
    draws = {}
    for selector in (
        s.UniformSelector(12),
        s.RidgeLeverageSelector(12, alpha=0.1),
        s.TruncatedLeverageSelector(12, n_components=5),
    ):
        name = type(selector).__name__
        draws[name] = (selector, True)
        draws[f"{name}, stratified"] = (clone(selector).set_params(stratify=True), True)
    for rounding in ("systematic", "spread", "cube", "local_cube", "choice", "cells"):
        selector = s.SkMMSelector(12, c_S=0.6, rounding=rounding)
        draws[f"SkMMSelector, {rounding}"] = (selector, rounding not in ("choice", "cells"))
    return draws


def probabilities(selector, classes):
    """Return the inclusion probabilities of a fitted selector."""
    if isinstance(selector, s.SkMMSelector):
        return 12 * selector.weights_
    if isinstance(selector, s.UniformSelector):
        return np.full(len(classes), 12 / len(classes))
    return selector.inclusion_probabilities_


def draws(n_draws):
    """Return one row for each randomised selector."""
    X, y, classes = skewed(np.random.RandomState(0))
    columns = np.column_stack([np.ones(60), X[:, 0], y, y**2])
    rows = []
    for name, (selector, promised) in drawing().items():
        counts, totals = np.zeros(60), []
        for seed in range(n_draws):
            selector.set_params(random_state=seed).fit(X, classes)
            picks, pi = selector.sample_indices_, probabilities(selector, classes)
            weight = selector.sample_weight_
            if isinstance(selector, s.SkMMSelector):  # inverse probabilities, left to the user
                weight = 1 / pi[picks]
            counts[picks] += 1
            totals.append(weight @ columns[picks])
        drawn = pi > 0
        free = drawn & (pi < 1 - 1e-9)
        spread = np.sqrt(pi[free] * (1 - pi[free]) * n_draws)
        z_included = np.abs((counts[free] - n_draws * pi[free]) / spread).max()
        error = np.mean(totals, axis=0) - columns[drawn].sum(axis=0)
        scale = np.std(totals, axis=0) / np.sqrt(n_draws)
        known = scale <= 1e-9 * np.abs(columns).sum(axis=0)  # totals without random error
        z_total = np.abs(np.divide(error, scale, where=~known, out=np.zeros(4))).max()
        limits = [stats.norm.isf(0.005 / k) for k in (free.sum(), (~known).sum())]
        always = bool(np.all(counts[pi >= 1 - 1e-9] == n_draws) and not counts[~drawn].any())
        rows.append((name, promised, n_draws, z_included, limits[0], always, z_total, limits[1]))
    names = ["selector", "promised", "draws", "max_z_included", "limit", "certain_right"]
    return pd.DataFrame(rows, columns=[*names, "max_z_total", "limit_total"])


def costs(X, metric):
    if metric == "gaussian":
        return -np.expm1(-cdist(X, X, "sqeuclidean") / 2)
    return cdist(X, X, metric)


def certificates(seeds):
    """Return one row for each certificate, with its guarantee and the true ratio."""
    rows = []
    for seed in range(seeds):
        X = small_pool(seed, 10)
        for n in (3, 5):
            subsets = list(combinations(range(10), n))
            for max_iter in (1, 5, 20):
                selector = s.SkMMSelector(n, c_S=0.5, max_iter=max_iter, tol=1e-10)
                selector.set_params(init="vertex", random_state=seed).fit(X)
                A = np.square(X @ selector.components_.T)
                best = relaxed_minimum(A, selector.eigenvalues_, n, 0.5)
                unit = np.square(selector.eigenvalues_ / 0.5).sum()
                above, gap = selector.objective_ - best, selector.dual_gap_
                holds = -1e-9 * unit <= above <= gap + 1e-12 * unit
                what = f"SkMM, duality gap after {max_iter} iterations"
                rows.append((what, n, holds, above / gap if gap > 1e-9 * unit else np.nan))
            selector = s.VOptimalSelector(n).fit(X)
            alpha = selector.alpha_
            best = min(diagnostics.v_optimality(X, S, alpha=alpha) for S in subsets)
            holds = selector.lower_bound_ <= best * (1 + 1e-9) <= selector.objective_ * (1 + 2e-9)
            rows.append(("V-optimal, lower bound", n, holds, selector.lower_bound_ / best))
            for metric in ("gaussian", "euclidean", "sqeuclidean"):
                C = costs(X, metric)
                # Without any exemplar, a sample costs as much as with its worst one.
                before = np.ones(10) if metric == "gaussian" else C.max(axis=1)
                saving = [np.sum(before - C[:, S].min(axis=1)) for S in map(list, subsets)]
                selector = s.FacilityLocationSelector(n, metric=metric, bandwidth=1.0).fit(X)
                ratio = (before.sum() - 10 * selector.objective_) / max(saving)
                holds = 1 - 1 / np.e <= ratio <= 1 + 1e-9
                rows.append((f"facility location, {metric}", n, holds, ratio))
            C = costs(X, "euclidean")
            best = min(C[:, S].min(axis=1).max() for S in map(list, subsets))
            ratio = s.KCenterSelector(n, random_state=seed).fit(X).radius_ / best if best else 1.0
            rows.append(("k-center, radius", n, 1 - 1e-9 <= ratio <= 2 + 1e-9, ratio))
    table = pd.DataFrame(rows, columns=["certificate", "n", "holds", "ratio"])
    table = table.groupby(["certificate", "n"], sort=False).agg(
        pools=("holds", "size"),
        holds=("holds", "mean"),
        least=("ratio", "min"),
        median=("ratio", "median"),
        most=("ratio", "max"),
    )
    # Group the rows by certificate, in the order of first appearance.
    order = {name: k for k, name in enumerate(table.index.unique("certificate"))}
    table = table.reset_index().sort_values(
        "certificate", key=lambda c: c.map(order), kind="stable"
    )
    promised = {"SkMM": "≤ 1", "V-op": "≤ 1", "faci": "≥ 0.632", "k-ce": "≤ 2"}
    meaning = {
        "SkMM": "(objective − minimum) / duality gap",
        "V-op": "lower bound / minimum",
        "faci": "saving / largest saving",
        "k-ce": "radius / least radius",
    }
    table.insert(2, "ratio", [meaning[name[:4]] for name in table.certificate])
    table.insert(3, "promised", [promised[name[:4]] for name in table.certificate])
    table.insert(
        6, "at_least", [proved(h, n) for h, n in zip(table.holds, table.pools, strict=True)]
    )
    return table


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--draws", type=int, default=12000)
    args = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    command = "OMP_NUM_THREADS=1 python examples/benchmarks/promises.py"
    for name, value, default in (("seeds", args.seeds, 200), ("draws", args.draws, 12000)):
        if value != default:
            command += f" --{name} {value}"
    for name, table in (
        ("promises_certificates", certificates(args.seeds)),
        ("promises", bounds(args.seeds)),
        ("promises_draws", draws(args.draws)),
    ):
        for column in table.select_dtypes(float).columns:
            table[column] = [float(f"{value:.3g}") for value in table[column]]
        print(table.to_string(index=False), "\n")
        print("wrote", record(table, name, command=command).name)


if __name__ == "__main__":
    main()
