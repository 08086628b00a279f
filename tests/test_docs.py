"""The documentation lists every public object, and every page can be reached.

The documentation's build checks cross-references, and that pages load nothing from other hosts.
"""

import re
from pathlib import Path

import pytest

import sklearn_skmm
from sklearn_skmm import base, datasets, diagnostics
from sklearn_skmm.utils import estimator_checks

DOCS = Path(__file__).parent.parent / "docs"
PAGES = sorted(path.stem for path in DOCS.glob("*.rst"))
GENERATED = {"sg_execution_times"}  # by sphinx-gallery

PUBLIC = [
    *sklearn_skmm.__all__,
    *(f"datasets.{name}" for name in datasets.__all__),
    *(f"diagnostics.{name}" for name in diagnostics.__all__),
    *(f"base.{name}" for name in base.__all__),
    *(
        f"utils.estimator_checks.{name}"
        for name in estimator_checks.__all__
        if callable(getattr(estimator_checks, name))
    ),
]


def entries(page, directive):
    """Return the indented entries under each of these directives on a page."""
    lines = (DOCS / f"{page}.rst").read_text(encoding="utf-8").splitlines()
    found, inside = [], False
    for line in lines:
        if line.startswith(f".. {directive}::"):
            inside = True
        elif line.strip() and not line.startswith("   "):
            inside = False
        elif inside and line.strip() and not line.strip().startswith(":"):
            found.append(line.strip())
    return found


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_are_in_the_reference(name):
    assert name in entries("api", "autosummary")


def test_reference_lists_only_public_names():
    assert set(entries("api", "autosummary")) <= set(PUBLIC)


def test_every_page_can_be_reached():
    reached, todo = set(), ["index"]
    while todo:
        page = todo.pop()
        reached.add(page)
        targets = {entry for entry in entries(page, "toctree") if entry in PAGES}
        todo.extend(targets - reached)
    assert reached == set(PAGES) - GENERATED


def test_relative_links_of_the_readme_exist():
    readme = DOCS.parent / "README.md"
    links = re.findall(r"\]\(([^)#]+)\)", readme.read_text(encoding="utf-8"))
    relative = [link for link in links if "://" not in link]
    assert relative
    assert [link for link in relative if not (readme.parent / link).exists()] == []


def test_structure_in_the_contributing_guide_matches_the_folders():
    text = (DOCS / "contributing.rst").read_text(encoding="utf-8")
    block = text.partition("   sklearn_skmm/\n")[2].partition("   tests/")[0]
    listed = {line.split()[0] for line in block.splitlines() if line.strip()}
    package = DOCS.parent / "sklearn_skmm"
    folders = {f"{path.parent.name}/" for path in package.rglob("__init__.py")} - {"sklearn_skmm/"}
    modules = {path.name for path in package.glob("*.py")} - {"__main__.py"}
    assert listed == folders | modules
