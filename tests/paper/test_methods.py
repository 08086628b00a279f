"""Methods of selection in the paper's experiments."""

import numpy as np
import pytest

pytestmark = pytest.mark.slow  # it tests an example, not the package


def test_all_methods_of_the_paper_are_available(paper):
    wanted = {"uniform", "herding", "contextual-diversity", "glister", "gradnorm", "forgetting"}
    wanted |= {"deepfool", "entropy", "margin", "least-confidence", "skmm-paper"}
    assert wanted <= set(paper.methods.CLASSIFICATION)


@pytest.mark.parametrize("experiment", ["cars-finetune", "utkface-probe"])
def test_every_method_runs(paper, run_experiment, experiment):
    regression = experiment == "utkface-probe"
    methods = paper.methods.REGRESSION if regression else paper.methods.CLASSIFICATION
    table = run_experiment(experiment, methods=methods)
    assert list(table["method"]) == list(methods)


@pytest.mark.parametrize("target", ["output", "random"])
def test_training_uses_exactly_the_selected_samples(paper, run_experiment, monkeypatch, target):
    selected, trained = [], []
    select, fit = paper.methods.select, paper.train.fit

    def kept(method, n, candidates):
        indices = select(method, n, candidates)
        selected.append((candidates.X, candidates.y, indices))
        return indices

    def fitted(tail, X, y, **kwargs):
        trained.append((np.array(X), np.array(y)))
        return fit(tail, X, y, **kwargs)

    monkeypatch.setattr(paper.methods, "select", kept)
    monkeypatch.setattr(paper.train, "fit", fitted)
    methods = ("k-center", "skmm-paper", "skmm")
    run_experiment("cars-finetune", "--target", target, n=(5, 8), methods=methods)
    assert len(selected) == len(trained) == 6
    for (X, y, indices), (X_fit, y_fit) in zip(selected, trained, strict=True):
        assert len(set(indices)) == len(indices) == len(y_fit)
        np.testing.assert_array_equal(X_fit, X[np.sort(indices)])
        np.testing.assert_array_equal(y_fit, y[np.sort(indices)])


def test_label_free_methods_do_not_use_labels(paper, weights, tmp_path):
    X = np.random.RandomState(0).normal(size=(30, 8)).astype(np.float32)
    make_tail = paper.models.clip(weights / "clip").make_tail

    def picks(y):
        candidates = paper.methods.Candidates(
            X,
            y,
            lambda seed: make_tail(3, seed),
            recipe=paper.train.Recipe(0.1, 1),
            m=6,
            target="output",
            seed=0,
            device="cpu",
        )
        return {
            name: paper.methods.select(name, 5, candidates) for name in paper.methods.LABEL_FREE
        }

    zeros, ones = picks(np.zeros(30, int)), picks(np.ones(30, int))
    for name, indices in zeros.items():
        np.testing.assert_array_equal(indices, ones[name])
