"""Importing the package does not import the libraries that it works with."""

import pytest


@pytest.mark.slow
def test_import_loads_no_third_party_integration(run_python):
    code = """
        import sys, sklearn.base
        before = set(sys.modules)
        import sklearn_skmm
        new = {name.split(".")[0] for name in set(sys.modules) - before}
        names = "accelerate cloudpickle datasets imblearn optuna polars skactiveml skorch"
        print(new & set(names.split()))
    """
    assert run_python(code) == "set()"
