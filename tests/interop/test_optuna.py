"""Studies of Optuna."""

import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score

from sklearn_skmm import CoresetEstimator
from tests._classification import pipeline


@pytest.mark.slow
def test_study_tunes_c_S_and_m(data):
    import optuna

    X, y = data
    model = CoresetEstimator(LogisticRegression(max_iter=1000), pipeline())

    def objective(trial):
        params = {
            "selector__skmmselector__c_S": trial.suggest_float("c_S", 0.5, 1.0),
            "selector__gradientsketcher__m": trial.suggest_int("m", 2, 12),
        }
        return cross_val_score(clone(model).set_params(**params), X, y, cv=3).mean()

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0))
    study.optimize(objective, n_trials=6)
    values = [trial.value for trial in study.trials]
    assert len(set(values)) > 1
    assert study.best_value == max(values)
    assert objective(optuna.trial.FixedTrial(study.best_params)) == study.best_value
