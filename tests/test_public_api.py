"""Public names of the package, their docstrings, and imports of optional dependencies."""

import inspect
import subprocess
import sys

import numpydoc.docscrape
import pytest

import sklearn_skmm

OPTIONAL = ("torch", "pandas", "matplotlib", "dask", "distributed", "skactiveml")
# What is not imported with the package: libraries that it works with, and its command line.
NOT_LOADED = {*OPTIONAL, "accelerate", "cloudpickle", "datasets", "imblearn", "optuna", "polars"}
NOT_LOADED |= {"skorch", "transformers", "sklearn_skmm.cli"}


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.slow
def test_import_loads_no_optional_dependency():
    # scikit-learn 1.9 itself imports pandas if it is installed. This package may add nothing.
    code = (
        "import sys, sklearn.base; before = set(sys.modules); import sklearn_skmm.plots\n"
        f"print({NOT_LOADED} & (set(sys.modules) - before))"
    )
    assert run(code) == "set()"


@pytest.mark.slow
def test_only_models_need_optional_dependencies():
    code = (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] in {OPTIONAL}: raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "import numpy as np, sklearn_skmm as s\n"
        "from sklearn.pipeline import make_pipeline\n"
        "pipe = make_pipeline(s.GradientSketcher(4), s.SkMMSelector(3))\n"
        "print(pipe.fit_transform(np.random.rand(20, 5)).shape)\n"
        "query = s.SelectorQuery(s.UniformSelector(1))\n"
        "print(len(query.query(np.random.rand(20, 3), np.full(20, np.nan), batch_size=4)))\n"
        "try: s.GradientSketcher(4, model=object()).fit([[1.0]])\n"
        "except ImportError as error: print(error)"
    )
    assert run(code).splitlines() == [
        "(3,)",
        "4",
        "GradientSketcher with a model needs torch: pip install 'sklearn-skmm[torch]'.",
    ]


def test_names_are_sorted_and_public():
    assert sklearn_skmm.__all__ == sorted(sklearn_skmm.__all__)
    assert all(hasattr(sklearn_skmm, name) for name in sklearn_skmm.__all__)


@pytest.mark.parametrize("name", sklearn_skmm.__all__)
def test_docstring_has_all_parameters_and_an_example(name):
    member = getattr(sklearn_skmm, name)
    if not inspect.isclass(member):
        doc = numpydoc.docscrape.FunctionDoc(member)
        assert doc["Returns"]
    else:
        doc = numpydoc.docscrape.ClassDoc(member)
        assert doc["Attributes"]
    documented = [parameter.name for parameter in doc["Parameters"]]
    assert documented == list(inspect.signature(member).parameters)
    assert ">>>" in "".join(doc["Examples"])
