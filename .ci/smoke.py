"""What has to work where only the built package and its dependencies are installed.

Run in a folder outside of the repository, with the Python of that environment.
"""

import doctest
import subprocess
import sys
from importlib import metadata, util
from pathlib import Path

import numpy as np

import sklearn_skmm

OPTIONAL = ("torch", "pandas", "matplotlib", "dask")
name = "sklearn-skmm"
about = metadata.metadata(name)

assert Path(sklearn_skmm.__file__).is_relative_to(sys.prefix), "not the installed package"
assert not [extra for extra in OPTIONAL if util.find_spec(extra)], "more than asked for is here"
assert sklearn_skmm.__version__ == about["Version"]
assert about["License-Expression"] == "BSD-3-Clause"
files = {str(file) for file in metadata.files(name)}
assert "sklearn_skmm/py.typed" in files
assert not [file for file in files if file.startswith(("tests", "docs", "examples"))]

# The README, which the metadata carry, up to where it needs pandas.
readme = about.get_payload().partition("## Compare")[0]
test = doctest.DocTestParser().get_doctest(readme, {}, "README.md", None, 0)
assert len(test.examples) > 10
options = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
assert doctest.DocTestRunner(optionflags=options).run(test).failed == 0


def command(*arguments):
    """Return what the command prints."""
    script = Path(sys.executable).with_name("sklearn-skmm")
    done = subprocess.run([script, *arguments], capture_output=True, text=True, check=True)
    return done.stdout


assert sklearn_skmm.__version__ in command("--version")
np.save("pool.npy", np.random.RandomState(0).normal(size=(300, 20)))
command("select", "pool.npy", "--n", "12", "--m", "8", "--out", "picks.csv")
with open("picks.csv") as file:
    picks = np.loadtxt(file, delimiter=",", skiprows=1, ndmin=2)
assert len(np.unique(picks[:, 0])) == 12

message = "a model without torch was not refused"
try:
    sklearn_skmm.GradientSketcher(4, model=object()).fit([[1.0]])
except ImportError as error:
    message = str(error)
assert "sklearn-skmm[torch]" in message, message
print(f"{name} {about['Version']} works as installed, with", metadata.version("numpy"), "of NumPy")
