"""The libraries that a coreset comes from and goes to, each as it is."""

import os
import pickle
import subprocess
import sys
import textwrap

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from scipy import sparse
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.datasets import make_classification
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    HalvingGridSearchCV,
    cross_val_score,
)
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_skmm import (
    CoresetEstimator,
    GradientSketcher,
    KCenterSelector,
    SelectorQuery,
    SkMMSelector,
    UncertaintySelector,
    UniformSelector,
)
from tests._selectors import make, selector_classes


@pytest.fixture
def data():
    return make_classification(200, 12, n_informative=6, n_classes=3, random_state=0)


def pipeline(n=40, m=6, **params):
    return make_pipeline(
        GradientSketcher(m=m, random_state=0), SkMMSelector(n, random_state=0, **params)
    )


def network(n_in=12, n_out=3):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return torch.nn.Sequential(
            torch.nn.Linear(n_in, 8), torch.nn.ReLU(), torch.nn.Linear(8, n_out)
        )


class Remembers(ClassifierMixin, BaseEstimator):
    """A classifier that keeps what its fit was given."""

    def fit(self, X, y, sample_weight=None):
        self.X_, self.y_, self.sample_weight_ = X, y, sample_weight
        self.classes_ = np.unique(y)
        return self

    def predict(self, X):
        return np.full(len(X), self.classes_[0])


# pandas and polars


def test_pandas_keeps_row_labels_that_are_not_unique(data):
    X, y = data
    index = pd.MultiIndex.from_arrays([np.arange(200) // 100, np.arange(200) % 50])
    frame = pd.DataFrame(X, index=index, columns=[f"x{i}" for i in range(12)])
    frame = frame.convert_dtypes()
    selector = SkMMSelector(40, random_state=0)
    X_part, y_part = selector.fit_resample(frame, pd.Series(y, index=index, name="class"))
    rows = SkMMSelector(40, random_state=0).fit_transform(X)
    pd.testing.assert_frame_equal(X_part, frame.iloc[rows])
    pd.testing.assert_series_equal(y_part, pd.Series(y, index=index, name="class").iloc[rows])


def test_set_output_names_the_sketch_and_keeps_row_labels(data):
    X, _ = data
    frame = pd.DataFrame(X, index=[f"row{i}" for i in range(200)])
    frame.columns = [f"x{i}" for i in range(12)]
    sketcher = GradientSketcher(m=3, random_state=0).set_output(transform="pandas")
    expected = pd.DataFrame(
        GradientSketcher(m=3, random_state=0).fit_transform(X),
        index=frame.index,
        columns=["gradientsketcher0", "gradientsketcher1", "gradientsketcher2"],
    )
    pd.testing.assert_frame_equal(sketcher.fit_transform(frame), expected)
    pd.testing.assert_frame_equal(clone(sketcher).fit(frame).transform(frame), expected)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_positions_stay_an_array_where_all_transformers_give_frames(data, library):
    X, y = data
    expected = pipeline().fit_transform(X)
    with sklearn.config_context(transform_output=library):
        picks = pipeline().fit_transform(X)
        model = CoresetEstimator(LogisticRegression(), pipeline()).fit(X, y)
    assert type(picks) is np.ndarray
    np.testing.assert_array_equal(picks, expected)
    np.testing.assert_array_equal(model.sample_indices_, expected)
    assert not hasattr(SkMMSelector(40), "set_output")


@pytest.mark.parametrize("cls", selector_classes(), ids=lambda cls: cls.__name__)
def test_polars_rows(data, cls):
    import polars as pl

    X, y = data
    frame = pl.DataFrame(X, schema=[f"x{i}" for i in range(12)])
    selector = make(cls, 40)
    X_part, y_part = selector.fit_resample(frame, pl.Series("class", y))
    rows = make(cls, 40).fit_transform(X, y)
    np.testing.assert_array_equal(selector.sample_indices_, rows)
    assert X_part.equals(frame[rows.tolist()])
    assert y_part.equals(pl.Series("class", y[rows]))
    assert list(selector.feature_names_in_) == frame.columns


def test_polars_through_a_pipeline_and_a_model(data):
    import polars as pl

    X, y = data
    frame = pl.DataFrame(X, schema=[f"x{i}" for i in range(12)])
    model = CoresetEstimator(LogisticRegression(), pipeline()).fit(frame, pl.Series(y))
    expected = CoresetEstimator(LogisticRegression(), pipeline()).fit(X, y)
    np.testing.assert_array_equal(model.sample_indices_, expected.sample_indices_)
    np.testing.assert_array_equal(model.estimator_.coef_, expected.estimator_.coef_)
    sketcher = GradientSketcher(m=3, random_state=0).set_output(transform="polars")
    sketch = sketcher.fit_transform(frame)
    assert sketch.columns == ["gradientsketcher0", "gradientsketcher1", "gradientsketcher2"]
    np.testing.assert_array_equal(
        sketch.to_numpy(), GradientSketcher(m=3, random_state=0).fit_transform(X)
    )


# imbalanced-learn


def test_last_step_of_an_imbalanced_learn_pipeline(data):
    import imblearn.pipeline

    X, y = data
    scaled = StandardScaler().fit_transform(X)
    rows = SkMMSelector(40, random_state=0).fit_transform(scaled)
    pipe = imblearn.pipeline.make_pipeline(StandardScaler(), SkMMSelector(40, random_state=0))
    X_part, y_part = pipe.fit_resample(X, y)
    np.testing.assert_array_equal(X_part, scaled[rows])
    np.testing.assert_array_equal(y_part, y[rows])
    np.testing.assert_array_equal(pipe.fit_transform(X), rows)


def test_function_sampler_makes_a_selector_an_intermediate_step(data):
    from imblearn import FunctionSampler
    from imblearn.pipeline import make_pipeline as make_imbalanced_pipeline

    X, y = data
    selector = SkMMSelector(40, random_state=0)
    # By imbalanced-learn's own rule, what has transform and fit_resample can only come last.
    with pytest.raises(TypeError, match="implements both"):
        make_imbalanced_pipeline(StandardScaler(), selector, LogisticRegression()).fit(X, y)
    sampler = FunctionSampler(func=selector.fit_resample, validate=False)
    pipe = make_imbalanced_pipeline(StandardScaler(), sampler, LogisticRegression())
    same = make_pipeline(StandardScaler(), CoresetEstimator(LogisticRegression(), selector))
    np.testing.assert_array_equal(
        cross_val_score(clone(pipe), X, y, cv=3), cross_val_score(same, X, y, cv=3)
    )
    pipe.fit(X, y)
    same.fit(X, y)
    np.testing.assert_array_equal(pipe[-1].coef_, same[-1].estimator_.coef_)
    np.testing.assert_array_equal(selector.sample_indices_, same[-1].sample_indices_)
    np.testing.assert_array_equal(pipe.predict(X), same.predict(X))


def test_samplers_of_imbalanced_learn_before_and_inside_a_coreset(data):
    from imblearn.over_sampling import RandomOverSampler
    from imblearn.pipeline import make_pipeline as make_imbalanced_pipeline

    X, y = data
    few = np.r_[np.flatnonzero(y == 0)[:15], np.flatnonzero(y != 0)]
    X, y = X[few], y[few]
    over = RandomOverSampler(random_state=0)
    X_more, y_more = over.fit_resample(X, y)
    before = make_imbalanced_pipeline(over, CoresetEstimator(LogisticRegression(), pipeline()))
    expected = CoresetEstimator(LogisticRegression(), pipeline()).fit(X_more, y_more)
    np.testing.assert_array_equal(before.fit(X, y)[-1].sample_indices_, expected.sample_indices_)
    np.testing.assert_array_equal(before.predict(X), expected.predict(X))
    inside = CoresetEstimator(
        make_imbalanced_pipeline(over, Remembers()), UniformSelector(60, random_state=0)
    ).fit(X, y)
    rows = inside.sample_indices_
    np.testing.assert_array_equal(inside.estimator_[-1].X_, over.fit_resample(X[rows], y[rows])[0])


# torch, skorch, Hugging Face


def test_torch_subset_and_sampler(data):
    X, y = data
    images = torch.as_tensor(X, dtype=torch.float32)
    dataset = torch.utils.data.TensorDataset(images, torch.as_tensor(y))
    pipe = make_pipeline(
        GradientSketcher(m=6, model=network(), random_state=0), SkMMSelector(40, random_state=0)
    )
    rows = pipe.fit_transform(dataset)
    np.testing.assert_array_equal(rows, pipe.fit_transform(images.numpy()))
    subset = torch.utils.data.Subset(dataset, rows)
    loaded = torch.cat([x for x, _ in torch.utils.data.DataLoader(subset, batch_size=7)])
    np.testing.assert_array_equal(loaded.numpy(), X[rows].astype(np.float32))
    sampler = torch.utils.data.SubsetRandomSampler(rows)
    labels = torch.cat(
        [x for x, _ in torch.utils.data.DataLoader(dataset, batch_size=7, sampler=sampler)]
    )
    order = np.lexsort(labels.numpy().T), np.lexsort(loaded.numpy().T)
    np.testing.assert_array_equal(labels[order[0]], loaded[order[1]])
    # A subset is a data set like any other: the coreset of a coreset.
    again = pipe.set_params(skmmselector__n_to_select=10).fit_transform(subset)
    np.testing.assert_array_equal(again, pipe.fit_transform(images.numpy()[rows]))


def test_skorch_net_is_trained_on_the_coreset(data):
    import skorch

    X, y = data
    X = X.astype(np.float32)

    def net():
        return skorch.NeuralNetClassifier(
            network(),
            criterion=torch.nn.CrossEntropyLoss,
            max_epochs=3,
            lr=0.1,
            train_split=None,
            verbose=0,
        )

    model = CoresetEstimator(net(), pipeline())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model.fit(X, y)
        torch.manual_seed(1)
        rows = pipeline().fit_transform(X)
        alone = net().fit(X[rows], y[rows])
    np.testing.assert_array_equal(model.sample_indices_, rows)
    np.testing.assert_array_equal(model.predict_proba(X), alone.predict_proba(X))
    assert model.estimator_.history[-1, "train_loss"] < model.estimator_.history[0, "train_loss"]
    # The fitted net is what a sketcher differentiates next.
    sketch = GradientSketcher(m=6, model=model.estimator_, random_state=0).fit_transform(X)
    expected = GradientSketcher(m=6, model=model.estimator_.module_, random_state=0)
    np.testing.assert_array_equal(sketch, expected.fit_transform(X))


@pytest.mark.slow
def test_trainer_sees_the_selected_rows_of_a_hugging_face_data_set(tmp_path):
    import datasets
    import transformers

    rng = np.random.RandomState(0)
    tokens = rng.randint(1, 30, size=(60, 6))
    ds = datasets.Dataset.from_dict(
        {
            "row": list(range(60)),
            "input_ids": tokens.tolist(),
            "attention_mask": np.ones_like(tokens).tolist(),
            "labels": (tokens[:, 0] % 2).tolist(),
        }
    )
    config = transformers.BertConfig(
        vocab_size=30, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=8, max_position_embeddings=8, num_labels=2,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.BertForSequenceClassification(config)
        pipe = make_pipeline(
            GradientSketcher(m=8, model=model, random_state=0), SkMMSelector(12, random_state=0)
        )
        rows = pipe.fit_transform(ds)
        coreset = ds.select(rows)
        assert coreset["row"][:] == rows.tolist()
        arrays = {name: np.array(ds[name][:]) for name in ("input_ids", "attention_mask")}
        np.testing.assert_array_equal(pipe.fit_transform(arrays), rows)
        seen = []

        def collate(samples):
            seen.extend(sample["row"] for sample in samples)
            return transformers.default_data_collator(
                [{name: sample[name] for name in sample if name != "row"} for sample in samples]
            )

        before = model.classifier.weight.detach().clone()
        trainer = transformers.Trainer(
            model=model,
            args=transformers.TrainingArguments(
                output_dir=tmp_path, max_steps=3, per_device_train_batch_size=4,
                use_cpu=True, report_to=[], save_strategy="no", disable_tqdm=True,
                remove_unused_columns=False, dataloader_pin_memory=False,
            ),
            train_dataset=coreset,
            data_collator=collate,
        )  # fmt: skip
        trainer.train()
    assert sorted(seen) == sorted(rows.tolist())  # one epoch: each row once, and no other
    assert not torch.equal(model.classifier.weight, before)


# scikit-activeml


def unlabelled(y, rows=()):
    given = np.full(len(y), np.nan)
    given[list(rows)] = y[list(rows)]
    return given


def test_query_loop_labels_new_samples_only(data):
    from skactiveml.classifier import SklearnClassifier

    X, y = data
    strategy = SelectorQuery(pipeline(1))
    given = unlabelled(y)
    model = SklearnClassifier(LogisticRegression(), classes=[0, 1, 2])
    # With nothing labelled it is the selector itself.
    np.testing.assert_array_equal(
        strategy.query(X, given, batch_size=20), pipeline(20).fit_transform(X)
    )
    for labelled in (0, 20, 40):
        queried = strategy.query(X, given, batch_size=20)
        assert np.isnan(given[queried]).all()
        given[queried] = y[queried]
        rows = np.flatnonzero(~np.isnan(given))
        assert len(rows) == labelled + 20
        plain = LogisticRegression().fit(X[rows], y[rows])
        np.testing.assert_array_equal(model.fit(X, given).predict(X), plain.predict(X))
    # Three rounds cover the samples nearly as well as one selection of the same size, and better
    # than rounds that do not know of each other.
    one = pipeline(60).fit_transform(X)
    apart = []
    for _ in range(3):
        left = np.setdiff1d(np.arange(200), apart)
        apart.extend(left[pipeline(20).fit_transform(X[left])])
    sketch = GradientSketcher(m=6, random_state=0).fit_transform(X)
    near = [
        np.square(euclidean_distances(sketch, sketch[chosen]).min(axis=1)).mean()
        for chosen in (one, rows, apart)
    ]
    assert near[1] < 1.15 * near[0]
    assert near[1] < near[2]


def test_query_takes_labelled_samples_as_selected(data):
    X, y = data
    selector = SkMMSelector(30, random_state=0)
    whole = selector.fit_transform(X)
    queried = SelectorQuery(selector).query(X, unlabelled(y, whole[::3]), batch_size=20)
    # Where they are of the larger coreset, the rest of it is queried.
    np.testing.assert_array_equal(queried, np.setdiff1d(whole, whole[::3]))
    # Clusters of equal size, all of the labelled samples in the first one: the others are next.
    rng = np.random.RandomState(0)
    clusters = np.repeat(np.arange(4), 25)
    X = 10 * np.eye(4)[clusters] + rng.normal(scale=0.1, size=(100, 4))
    y = unlabelled(clusters, range(3))
    queried = SelectorQuery(KCenterSelector(1)).query(X, y, batch_size=3)
    assert sorted(clusters[queried]) == [1, 2, 3]


@pytest.mark.parametrize("container", [np.asarray, sparse.csr_array, pd.DataFrame])
def test_query_of_candidates(data, container):
    X, y = data
    given = unlabelled(y, range(10))
    candidates = np.arange(50, 120, 2)
    strategy = SelectorQuery(SkMMSelector(1, random_state=0))
    queried, utilities = strategy.query(
        container(X), given, candidates=candidates, batch_size=5, return_utilities=True
    )
    assert len(set(queried.tolist())) == 5
    assert set(queried.tolist()) <= set(candidates.tolist())
    assert utilities.shape == (5, 200)
    np.testing.assert_array_equal(np.flatnonzero(~np.isnan(utilities[0])), candidates)
    for b in range(5):
        assert np.nanmax(utilities[b]) == utilities[b, queried[b]] == 1.0
        assert np.isnan(utilities[b, queried[:b]]).all()
    # The same, with the candidates given by themselves.
    others = np.setdiff1d(np.arange(200), candidates)
    queried, utilities = strategy.query(
        container(X[others]), given[others], candidates=container(X[candidates]),
        batch_size=5, return_utilities=True,
    )  # fmt: skip
    assert len(set(queried.tolist())) == 5
    assert queried.max() < 35
    assert utilities.shape == (5, 35)
    assert np.count_nonzero(utilities[0] == 1) == 5


def test_query_of_what_is_left(data):
    X, y = data
    strategy = SelectorQuery(UniformSelector(1, random_state=0))
    given = unlabelled(y, range(190))
    with pytest.warns(UserWarning, match="batch_size=20 is larger than the number of candidates"):
        queried = strategy.query(X, given, batch_size=20)
    assert sorted(queried) == list(range(190, 200))
    with pytest.raises(ValueError, match="every sample is labelled"):
        strategy.query(X, y)


def test_query_of_frames(data):
    import polars as pl

    X, y = data
    given = unlabelled(y, range(10))
    strategy = SelectorQuery(SkMMSelector(1, random_state=0))
    expected = strategy.query(X, given, batch_size=5)
    names = [f"x{i}" for i in range(12)]
    frames = [
        (pd.DataFrame(X, columns=names), pd.Series(given)),
        (pd.DataFrame(X, columns=names), pd.Series(given).astype("Int64")),
        (pl.DataFrame(X, schema=names), pl.Series(given)),
        (torch.as_tensor(X), torch.as_tensor(given)),
    ]
    for frame, labels in frames:
        np.testing.assert_array_equal(strategy.query(frame, labels, batch_size=5), expected)


def test_query_by_the_gradients_of_a_model(data):
    X, y = data
    images = X.astype(np.float32).reshape(200, 3, 2, 2)
    model = torch.nn.Sequential(torch.nn.Flatten(), network())
    pipe = make_pipeline(
        GradientSketcher(m=6, model=model, random_state=0), SkMMSelector(1, random_state=0)
    )
    given = unlabelled(y, range(10))
    queried = SelectorQuery(pipe).query(images, given, batch_size=20)
    assert np.isnan(given[queried]).all()
    # The same as on the sketch itself.
    sketch = clone(pipe[0]).fit_transform(images)
    expected = SelectorQuery(SkMMSelector(1, random_state=0)).query(sketch, given, batch_size=20)
    np.testing.assert_array_equal(queried, expected)


@pytest.mark.parametrize("missing", [np.nan, None, -1, "?"])
def test_missing_labels_of_every_kind(data, missing):
    X, _ = data
    names = np.array(["a", "b"] * 100, dtype=object)
    labels = np.arange(200, dtype=object) if missing == -1 else names
    labels[10:] = missing
    if missing in (-1, "?"):
        labels = np.array(labels.tolist())
    strategy = SelectorQuery(SkMMSelector(1, random_state=0), missing_label=missing)
    expected = SelectorQuery(SkMMSelector(1, random_state=0)).query(
        X, unlabelled(np.zeros(200), range(10)), batch_size=5
    )
    np.testing.assert_array_equal(strategy.query(X, labels, batch_size=5), expected)


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"candidates": [3, 60]}, ValueError, r"labelled \[3\] instead"),
        ({"candidates": [60, 200]}, ValueError, "between 0 and 199"),
        ({"candidates": [60.5]}, TypeError, "integer positions"),
        ({"batch_size": 0}, ValueError, "batch_size == 0, must be >= 1"),
        ({"X": np.ones((3, 2))}, ValueError, "inconsistent numbers of samples"),
    ],
)
def test_wrong_queries(data, params, error, message):
    X, y = data
    strategy = SelectorQuery(SkMMSelector(1))
    with pytest.raises(error, match=message):
        strategy.query(**{"X": X, "y": unlabelled(y, range(10)), **params})
    assert not hasattr(strategy, "selector_")


def test_selectors_that_learn_from_labels_cannot_query(data):
    X, y = data
    with pytest.raises(ValueError, match="requires y to be passed"):
        SelectorQuery(UncertaintySelector(1, LogisticRegression())).query(X, unlabelled(y))
    with pytest.raises(ValueError, match="stratify=True requires y"):
        SelectorQuery(SkMMSelector(1, stratify=True)).query(X, unlabelled(y))


def test_wrappers_of_scikit_activeml_take_a_selector(data):
    from skactiveml.base import SingleAnnotatorPoolQueryStrategy
    from skactiveml.pool import SubSamplingWrapper
    from skactiveml.pool.multiannotator import SingleAnnotatorWrapper

    X, y = data
    given = unlabelled(y, range(10))
    strategy = SelectorQuery(SkMMSelector(1, random_state=0))
    for one in (strategy, clone(strategy), pickle.loads(pickle.dumps(strategy))):
        assert isinstance(one, SingleAnnotatorPoolQueryStrategy)
    for exclude in (False, True):
        queried, utilities = SubSamplingWrapper(
            strategy, max_candidates=30, exclude_non_subsample=exclude, random_state=0
        ).query(X, given, batch_size=5, return_utilities=True)
        assert len(set(queried.tolist())) == 5
        assert np.isnan(given[queried]).all()
        assert np.count_nonzero(np.isfinite(utilities[0])) == 30
    pairs = SingleAnnotatorWrapper(strategy, random_state=0).query(
        X, np.full((200, 3), np.nan), batch_size=5, n_annotators_per_sample=1
    )
    np.testing.assert_array_equal(
        np.sort(pairs[:, 0]), SkMMSelector(5, random_state=0).fit_transform(X)
    )


@pytest.mark.slow
def test_an_unpickled_strategy_is_one_of_scikit_activeml(tmp_path):
    with open(tmp_path / "strategy.pkl", "wb") as file:
        pickle.dump(SelectorQuery(UniformSelector(1)), file)
    code = """
        import pickle, sys
        with open(sys.argv[1], "rb") as file:
            strategy = pickle.load(file)
        from skactiveml.base import SingleAnnotatorPoolQueryStrategy
        print(isinstance(strategy, SingleAnnotatorPoolQueryStrategy))
    """
    assert run(code, str(tmp_path / "strategy.pkl")) == "True"


@pytest.mark.slow
def test_import_loads_none_of_these_libraries():
    code = """
        import sys, sklearn.base
        before = set(sys.modules)
        import sklearn_skmm
        new = {name.split(".")[0] for name in set(sys.modules) - before}
        names = "accelerate cloudpickle datasets imblearn optuna polars skactiveml skorch"
        print(new & set(names.split()))
    """
    assert run(code) == "set()"


@pytest.mark.slow
def test_query_works_without_scikit_activeml():
    code = """
        import sys
        sys.modules["skactiveml"] = None
        import numpy as np
        from sklearn_skmm import SelectorQuery, UniformSelector
        strategy = SelectorQuery(UniformSelector(1, random_state=0))
        print(len(strategy.query(np.random.rand(20, 3), np.full(20, np.nan), batch_size=4)))
    """
    assert run(code) == "4"


def run(code, *arguments, **environment):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# Searches


@pytest.mark.slow
def test_optuna_study_over_c_S_and_m(data):
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


@pytest.mark.slow
def test_halving_search_over_c_S_and_m(data):
    X, y = data
    search = HalvingGridSearchCV(
        CoresetEstimator(LogisticRegression(max_iter=1000), pipeline(0.5)),
        {
            "selector__skmmselector__c_S": [0.7, 0.999],
            "selector__gradientsketcher__m": [4, 12],
        },
        cv=3,
        factor=2,
        min_resources=50,
        random_state=0,
    ).fit(X, y)
    assert search.n_resources_ == [50, 100, 200]
    assert search.n_candidates_ == [4, 2, 1]
    best = search.best_estimator_
    assert best.sample_indices_.shape == (100,)
    alone = clone(best).fit(X, y)
    np.testing.assert_array_equal(alone.sample_indices_, best.sample_indices_)
    np.testing.assert_array_equal(alone.predict(X), search.predict(X))


@pytest.mark.slow
def test_halving_search_with_the_size_of_the_coreset_as_its_resource(data):
    X, y = data
    search = HalvingGridSearchCV(
        CoresetEstimator(LogisticRegression(max_iter=1000), pipeline()),
        {"selector__skmmselector__c_S": [0.7, 0.999], "selector__gradientsketcher__m": [4, 12]},
        resource="selector__skmmselector__n_to_select",
        min_resources=20,
        max_resources=80,
        factor=2,
        cv=3,
        random_state=0,
    ).fit(X, y)
    assert search.n_resources_ == [20, 40, 80]
    assert search.best_estimator_.sample_indices_.shape == (80,)


def test_memory_keeps_the_sketch_of_a_model(data, tmp_path, monkeypatch):
    X, _ = data
    images = X.astype(np.float32)
    calls = []
    plain = GradientSketcher._sketched

    def counted(self, X, *args):
        calls.append(self.m)
        return plain(self, X, *args)

    monkeypatch.setattr(GradientSketcher, "_sketched", counted)
    memory = joblib.Memory(tmp_path, verbose=0)
    model = network()

    def cached(c_S):
        sketcher = GradientSketcher(m=6, model=model, random_state=0)
        selector = SkMMSelector(40, c_S=c_S, random_state=0)
        return Pipeline([("sketch", sketcher), ("select", selector)], memory=memory)

    first = cached(0.999).fit_transform(images)
    np.testing.assert_array_equal(cached(0.999).fit_transform(images), first)
    cached(0.8).fit(images)
    assert calls == [6]
    # Weights that change in place are noticed.
    with torch.no_grad():
        model[0].weight.mul_(2)
    cached(0.999).fit(images)
    assert calls == [6, 6]


# scikit-learn's own protocols


def test_groups_and_weights_are_routed(data):
    X, y = data
    weight = np.random.RandomState(0).uniform(size=200)
    groups = np.arange(200) % 10
    with sklearn.config_context(enable_metadata_routing=True):
        model = CoresetEstimator(
            Remembers().set_fit_request(sample_weight=True).set_score_request(sample_weight=True),
            pipeline(),
            use_sample_weight=True,
        )
        pipe = make_pipeline(StandardScaler().set_fit_request(sample_weight=False), model)
        search = GridSearchCV(
            pipe,
            {"coresetestimator__selector__skmmselector__n_to_select": [20, 40]},
            cv=GroupKFold(n_splits=5),
            refit=True,
        ).fit(X, y, sample_weight=weight, groups=groups)
        found = search.best_estimator_[-1]
        scaled = StandardScaler().fit_transform(X)
        selector = clone(found.selector).fit(scaled)
        rows = selector[-1].sample_indices_
        np.testing.assert_array_equal(found.estimator_.X_, scaled[rows])
        np.testing.assert_array_equal(
            found.estimator_.sample_weight_, weight[rows] * selector[-1].sample_weight_
        )
        scores = search.cv_results_["split0_test_score"]
        train, test = next(GroupKFold(n_splits=5).split(X, y, groups))
        expected = [
            accuracy_score(
                y[test],
                clone(pipe)
                .set_params(**params)
                .fit(X[train], y[train], sample_weight=weight[train])
                .predict(X[test]),
                sample_weight=weight[test],
            )
            for params in search.cv_results_["params"]
        ]
        np.testing.assert_allclose(scores, expected)


def test_weights_that_nobody_asked_for_are_refused(data):
    X, y = data
    with sklearn.config_context(enable_metadata_routing=True):
        model = CoresetEstimator(LogisticRegression(), SkMMSelector(40))
        with pytest.raises(sklearn.exceptions.UnsetMetadataPassedError, match="sample_weight"):
            model.fit(X, y, sample_weight=np.ones(200))


def test_callbacks_follow_a_search_into_the_selector(data, capsys):
    from sklearn.callback import ProgressBar

    X, y = data
    model = CoresetEstimator(LogisticRegression(), UniformSelector(40, random_state=0))
    grid = {"selector__n_to_select": [20, 40]}
    search = GridSearchCV(model, grid, cv=2)
    search.set_callbacks(ProgressBar(max_propagation_depth=None)).fit(X, y)
    shown = capsys.readouterr().out
    for name in ("GridSearchCV", "CoresetEstimator", "UniformSelector"):
        assert name in shown
    plain = GridSearchCV(model, grid, cv=2).fit(X, y)
    np.testing.assert_array_equal(
        search.best_estimator_.sample_indices_, plain.best_estimator_.sample_indices_
    )


def test_cloudpickle_takes_what_pickle_cannot(data):
    import cloudpickle

    X, y = data
    images = X.astype(np.float32)
    sketcher = GradientSketcher(
        m=6,
        model=network(),
        loss=lambda output, target: torch.nn.functional.cross_entropy(output, target),
        random_state=0,
    ).fit(images)
    restored = cloudpickle.loads(cloudpickle.dumps(sketcher))
    np.testing.assert_array_equal(restored.transform(images, y), sketcher.transform(images, y))
    model = CoresetEstimator(LogisticRegression(), pipeline()).fit(X, y)
    for pickler in (pickle, cloudpickle):
        copy = pickler.loads(pickler.dumps(model))
        np.testing.assert_array_equal(copy.predict_proba(X), model.predict_proba(X))
        np.testing.assert_array_equal(copy.selector_.transform(X), model.sample_indices_)


def test_tensors_give_the_same_indices_and_keep_their_kind(data):
    X, y = data
    X_part, y_part = UniformSelector(30, random_state=0).fit_resample(
        torch.as_tensor(X), torch.as_tensor(y)
    )
    rows = UniformSelector(30, random_state=0).fit_transform(X)
    assert torch.equal(X_part, torch.as_tensor(X[rows]))
    assert torch.equal(y_part, torch.as_tensor(y[rows]))


@pytest.mark.slow
def test_array_api_dispatch():
    # scipy reads the variable when it is imported. Selectors compute in NumPy either way, and
    # an estimator that supports the array API is fitted on tensors.
    code = """
        import numpy as np, sklearn, torch
        from sklearn.linear_model import Ridge
        from sklearn_skmm import CoresetEstimator, GradientSketcher
        from tests._selectors import make, selector_classes

        rng = np.random.RandomState(0)
        X, y = rng.normal(size=(80, 6)), np.arange(80) % 2
        tensor, labels = torch.as_tensor(X), torch.as_tensor(y)
        sketch = GradientSketcher(4, random_state=0).fit_transform(X)
        plain = {
            (cls, stratify): make(cls, 20, stratify=stratify).fit(X, y)
            for cls in selector_classes() for stratify in (False, True)
        }
        with sklearn.config_context(array_api_dispatch=True):
            for (cls, stratify), expected in plain.items():
                selector = make(cls, 20, stratify=stratify).fit(tensor, labels)
                assert (selector.sample_indices_ == expected.sample_indices_).all(), cls
                assert (selector.transform(tensor, labels) == expected.sample_indices_).all(), cls
                assert np.isclose(selector.score(tensor), expected.score(X), rtol=1e-12), cls
                rows, _ = make(cls, 20, stratify=stratify).fit_resample(tensor, labels)
                assert torch.equal(rows, tensor[expected.sample_indices_]), cls
            found = GradientSketcher(4, random_state=0).fit_transform(tensor)
            assert (found == sketch).all()
            model = CoresetEstimator(Ridge(solver="svd"), selector).fit(tensor, labels.double())
            assert isinstance(model.predict(tensor), torch.Tensor)
            rows = model.sample_indices_
            assert torch.equal(
                model.predict(tensor),
                Ridge(solver="svd").fit(tensor[rows], labels.double()[rows]).predict(tensor),
            )
        print(len(plain))
    """
    assert run(code, SCIPY_ARRAY_API="1") == str(2 * len(selector_classes()))


def test_ridge_is_fitted_on_weights_of_a_pandas_coreset(data):
    X, y = data
    frame = pd.DataFrame(X, columns=[f"x{i}" for i in range(12)])
    selector = SkMMSelector(40, rounding="exemplar", random_state=0)
    model = CoresetEstimator(Ridge(), selector, use_sample_weight=True).fit(frame, pd.Series(y))
    fitted = clone(selector).fit(X)
    assert len(set(fitted.sample_weight_.tolist())) > 1
    rows = fitted.sample_indices_
    expected = Ridge().fit(X[rows], y[rows], sample_weight=fitted.sample_weight_)
    np.testing.assert_allclose(model.estimator_.coef_, expected.coef_, rtol=1e-9)
