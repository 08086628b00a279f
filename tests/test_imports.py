"""The rule of imports: which folder may import which, and where optional libraries enter.

The source of every module is parsed, so that imports inside functions count, too.
"""

import ast
from pathlib import Path

import pytest

import sklearn_skmm

PACKAGE = Path(sklearn_skmm.__file__).parent
MODULES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))

# What each part may import besides itself: utils ← core ← data ← base ← selectors ← meta ← plots,
# and data ← sketch ← sketch/_torch.
MAY_IMPORT = {
    "utils": set(),
    "core": {"utils"},
    "data": {"utils", "core"},
    "base": {"utils", "core", "data"},
    "selectors": {"utils", "core", "data", "base"},
    "meta": {"utils", "core", "data", "base", "selectors"},
    "plots": {"utils", "core", "data", "base", "selectors", "meta"},
    "sketch": {"utils", "core", "data"},
    "sketch._torch": {"utils", "core", "data", "sketch"},
    "datasets": {"utils"},
    "diagnostics": {"utils", "core", "data"},
    "cli": {
        *("utils", "core", "data", "base", "selectors", "meta", "plots", "sketch"),
        *("datasets", "diagnostics", "__init__"),
    },
    "__main__": {"cli"},
    "__init__": {"selectors", "meta", "plots", "sketch"},
}
# The only import against the rule: the sketcher imports the folder with torch when it has a model.
EXCEPTIONS = {("sketch/_sketcher.py", "sketch._torch")}
# Which parts may import an optional library.
OPTIONAL = {
    "torch": {"sketch._torch"},
    "matplotlib": {"plots"},
    "dask": {"data", "sketch"},
    "pandas": {"data", "meta", "plots", "utils"},
    "skactiveml": {"meta"},
}
# What core, functions of arrays, must not use: estimators, validation, files and processes.
NOT_IN_CORE = (
    "sklearn.base",
    "sklearn.callback",
    "sklearn.utils.validation",
    "sklearn.utils._param_validation",
    "sklearn_skmm.utils._sklearn",
    "sklearn_skmm.utils._validation",
    *("os", "io", "pathlib", "shutil", "tempfile", "subprocess", "json", "csv", "pickle", "socket"),
)
PRIVATE = "utils/_sklearn.py"  # the only file for names that scikit-learn keeps private
IO_CALLS = {"open", "print", "input", "load", "save", "savez", "memmap", "fromfile", "tofile"}
VALIDATION_CALLS = {"check_array", "check_X_y", "validate_data"}


def part_of(module: str) -> str:
    """The part that a file belongs to: "sketch/_torch/_engine.py" to "sketch._torch"."""
    *folders, name = module.split("/")
    return ".".join(folders) if folders else name.removesuffix(".py")


def part_imported(name: str) -> str:
    """The part that an absolute name belongs to: "sklearn_skmm.core._moments" to "core"."""
    names = name.split(".")[1:]
    if names[:2] == ["sketch", "_torch"]:
        return "sketch._torch"
    return names[0] if names else "__init__"


def name_of(node) -> str:
    """The last name of an expression such as `os.path.join`."""
    return getattr(node, "attr", getattr(node, "id", ""))


def imports(module: str, source: str):
    """The absolute names of the modules that a source imports anywhere in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                folders = ["sklearn_skmm", *module.split("/")[:-1]]
                base = ".".join([*folders[: len(folders) - node.level + 1], *filter(None, [base])])
            for alias in node.names:
                # A module of the package, or a name in one.
                path = PACKAGE.joinpath(*f"{base}.{alias.name}".split(".")[1:])
                inside = base.split(".")[0] == "sklearn_skmm"
                is_module = inside and (path.is_dir() or path.with_suffix(".py").exists())
                yield f"{base}.{alias.name}" if is_module else base
        elif isinstance(node, ast.Call) and name_of(node.func) in ("import_module", "__import__"):
            yield getattr(node.args[0], "value", "unknown")


def forbidden(module: str, name: str) -> bool:
    """Whether a file must not import a module."""
    part, top = part_of(module), name.split(".")[0]
    if part == "core" and any(f"{name}.".startswith(f"{bad}.") for bad in NOT_IN_CORE):
        return True
    if top == "sklearn_skmm":
        other = part_imported(name)
        return not (other == part or other in MAY_IMPORT[part] or (module, other) in EXCEPTIONS)
    if top == "sklearn":  # what scikit-learn keeps private has one place
        return "._" in name and module != PRIVATE
    return part not in OPTIONAL.get(top, {part})


def offences(module: str, source: str) -> list[tuple[str, str]]:
    """The pairs of a file and what it must not import, call or inherit from."""
    part, found = part_of(module), []
    found += [(module, name) for name in imports(module, source) if forbidden(module, name)]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "sklearn":
            private = [alias.name for alias in node.names if alias.name.startswith("_")]
            found += [(module, f"{node.module}.{name}") for name in private if module != PRIVATE]
        elif isinstance(node, ast.Call):
            called = name_of(node.func)
            in_core = part == "core" and called in IO_CALLS
            if in_core or (part != "data" and called in VALIDATION_CALLS):
                found.append((module, called))
        elif isinstance(node, ast.ClassDef) and part == "core":
            bases = map(name_of, node.bases)
            found += [(module, b) for b in bases if b.endswith(("Estimator", "Mixin", "Selector"))]
    return found


@pytest.mark.parametrize("module", MODULES)
def test_imports_follow_the_rule(module):
    assert offences(module, (PACKAGE / module).read_text(encoding="utf-8")) == []


def test_every_part_has_a_rule_and_says_what_it_is():
    assert {part_of(module) for module in MODULES} - {"__init__"} <= MAY_IMPORT.keys()
    for module in MODULES:
        if module.endswith("__init__.py"):
            doc = ast.get_docstring(ast.parse((PACKAGE / module).read_text(encoding="utf-8")))
            assert doc, module
            assert len(doc.split()) >= 5, module


@pytest.mark.parametrize(
    ("module", "source", "offender"),
    [
        ("core/_moments.py", "from sklearn_skmm.base import Reference", "sklearn_skmm.base"),
        ("core/_moments.py", "def f():\n    from sklearn_skmm import data", "sklearn_skmm.data"),
        ("core/_moments.py", "from ..selectors import _skmm", "sklearn_skmm.selectors._skmm"),
        ("core/_moments.py", "from sklearn.base import BaseEstimator", "sklearn.base"),
        ("core/_moments.py", "import numpy as np\nnp.load('x.npy')", "load"),
        ("core/_moments.py", "class A(BaseEstimator): pass", "BaseEstimator"),
        ("core/_moments.py", "import os.path", "os.path"),
        ("utils/_memory.py", "from sklearn_skmm.core import _costs", "sklearn_skmm.core._costs"),
        ("selectors/_uniform.py", "from sklearn_skmm import meta", "sklearn_skmm.meta"),
        ("selectors/_uniform.py", "import sklearn_skmm", "sklearn_skmm"),
        ("selectors/_uniform.py", "def f():\n    import torch.nn", "torch.nn"),
        ("selectors/_uniform.py", "check_array(X)", "check_array"),
        ("sketch/_cache.py", "import torch", "torch"),
        ("sketch/_cache.py", "importlib.import_module('torch')", "torch"),
        ("sketch/_cache.py", "from . import _torch", "sklearn_skmm.sketch._torch"),
        ("meta/_compare.py", "import matplotlib.pyplot as plt", "matplotlib.pyplot"),
        ("meta/_compare.py", "from sklearn_skmm import cli", "sklearn_skmm.cli"),
        ("meta/_compare.py", "from sklearn.utils import _foo", "sklearn.utils._foo"),
    ],
)
def test_an_offending_pair_is_found(module, source, offender):
    assert (module, offender) in offences(module, source)
