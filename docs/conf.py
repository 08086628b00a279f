"""Sphinx configuration."""

from pathlib import Path

import sklearn_skmm

project = "sklearn_skmm"
author = "the sklearn_skmm developers"
project_copyright = "2026, the sklearn_skmm developers"
version = release = sklearn_skmm.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.extlinks",
    "sphinx.ext.mathjax",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
]
extlinks = {"arxiv": ("https://arxiv.org/abs/%s", "arXiv:%s")}
html_theme = "pydata_sphinx_theme"
html_theme_options = {"show_prev_next": False}
html_sourcelink_suffix = ""
exclude_patterns = ["_build"]
autosummary_generate = True
numpydoc_show_class_members = True
# Methods that scikit-learn documents, and their metadata-request setters.
numpydoc_show_inherited_class_members = False
numpydoc_class_members_toctree = False

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "ignore_pattern": r"benchmarks",
    "filename_pattern": r"plot_",
    "download_all_examples": False,
    "show_memory": False,
}


def _tables():
    """Copy the benchmarks' tables without their comment lines, which csv-table cannot skip."""
    here = Path(__file__).parent
    target = here / "_build" / "tables"
    target.mkdir(parents=True, exist_ok=True)
    for path in (here.parent / "examples" / "benchmarks" / "results").glob("*.csv"):
        lines = path.read_text().splitlines()
        comments = [line.removeprefix("# ") for line in lines if line.startswith("#")]
        rows = [line for line in lines if not line.startswith("#")]
        (target / path.name).write_text("\n".join(rows) + "\n")
        (target / path.with_suffix(".txt").name).write_text("\n".join(comments) + "\n")


_tables()
