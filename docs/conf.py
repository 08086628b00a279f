"""Sphinx configuration."""

import csv
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from docutils.nodes import SkipNode
from sphinx.util import logging

import sklearn_skmm

try:  # Formulas as MathML, which browsers draw themselves; without it, by MathJax from its server.
    from latex2mathml.converter import convert as to_mathml
except ModuleNotFoundError:
    to_mathml = None

project = "sklearn_skmm"
author = "the sklearn_skmm developers"
project_copyright = "2026, the sklearn_skmm developers"
version = release = sklearn_skmm.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.extlinks",
    *([] if to_mathml else ["sphinx.ext.mathjax"]),
    "numpydoc",
    "sphinx_gallery.gen_gallery",
]
extlinks = {"arxiv": ("https://arxiv.org/abs/%s", "arXiv:%s")}
html_theme = "pydata_sphinx_theme"
html_theme_options = {"show_prev_next": False, "header_links_before_dropdown": 6}
html_title = "sklearn_skmm"
html_favicon = "_static/icon.svg"
html_context = {"default_mode": "auto"}  # light or dark as the system says
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = ["copy.js"]
# Pages without a section of their own need no list of it.
html_sidebars = {"index": [], "quickstart": [], "search": [], "genindex": []}
html_math_renderer = "mathml" if to_mathml else "mathjax"
html_sourcelink_suffix = ""
toc_object_entries_show_parents = "hide"
exclude_patterns = ["_build", "**sg_execution_times.rst"]
templates_path = ["_templates"]
autosummary_generate = True
numpydoc_show_class_members = False  # _templates/autosummary/class.rst has the methods

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "ignore_pattern": r"benchmarks",
    "filename_pattern": r"plot_",
    "within_subsection_order": "FileNameSortKey",
    "download_all_examples": False,
    "show_memory": False,
    "write_computation_times": False,  # that page would load scripts from other hosts
}


def _tables():
    """Copy the benchmarks' tables without their comment lines, which csv-table cannot skip.

    Long names of columns may break at their underscores, and numbers are made legible.
    """
    here = Path(__file__).parent
    target = here / "_build" / "tables"
    target.mkdir(parents=True, exist_ok=True)
    for path in (here.parent / "examples" / "benchmarks" / "results").glob("*.csv"):
        lines = path.read_text().splitlines()
        comments = [line.removeprefix("# ") for line in lines if line.startswith("#")]
        rows = [line for line in lines if not line.startswith("#")]
        head, *body = csv.reader(rows)
        head = [name.replace("_", "_\N{ZERO WIDTH SPACE}") for name in head]
        body = [[_number(cell) for cell in row] for row in body]
        with (target / path.name).open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([head, *body])
        (target / path.with_suffix(".txt").name).write_text("\n".join(comments) + "\n")


def _number(cell):
    """1,000,000 for 1000000, 740 for 740.0, and a minus, at which no line breaks, for a hyphen."""
    if re.fullmatch(r"-?[0-9.]+(e[-+][0-9]+)?", cell) is None:
        return cell
    if "." in cell and len(cell) > 12:
        cell = f"{float(cell):.4g}"
    cell = re.sub(r"^(-?[0-9]{3,})\.0$", r"\1", cell)
    if re.fullmatch(r"[0-9]{5,}", cell):
        return f"{int(cell):,}"
    return cell.replace("-", "\N{MINUS SIGN}")


def _changelog():
    """Turn CHANGELOG.md, which uses headings, lists, code and links only, into reStructuredText."""
    here = Path(__file__).parent
    text = (here.parent / "CHANGELOG.md").read_text()
    text = re.sub(r"`([^`]+)`", r"``\1``", text)
    text = re.sub(r"\[([^]]+)\]\(([^)]+)\)", r"`\1 <\2>`__", text)
    text = re.sub(r"^\[[^]]+\]: .*\n?", "", text, flags=re.MULTILINE)  # links of the headings
    text = re.sub(r"^(#+) (.+)$", _heading, text, flags=re.MULTILINE)
    (here / "_build" / "changelog.txt").write_text(text)


def _heading(match):
    title = match[2].replace("[", "").replace("]", "")
    return f"{title}\n{'=-~'[len(match[1]) - 1] * len(title)}"


def _visit_math(translator, node):
    translator.body.append(to_mathml(node.astext()))
    raise SkipNode


def _visit_math_block(translator, node):
    formula = to_mathml(node.astext(), display="block")
    # What a minimum is over stands below it.
    formula = re.sub(r"<msub>(<mo>min</mo><mi>\w+</mi>)</msub>", r"<munder>\1</munder>", formula)
    translator.body.append(f'<div class="formula">{formula}</div>\n')
    raise SkipNode


class _Loaded(HTMLParser):
    """What a page has its reader's browser load, and where its links lead."""

    def __init__(self, text):
        super().__init__()
        self.assets, self.links, self.anchors = set(), set(), set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.anchors.add(attributes.get("id"))
        if tag == "a":
            self.links.add(attributes.get("href"))
        elif tag != "link" or attributes.get("rel") not in ("canonical", "index", "next", "prev"):
            self.assets |= {attributes.get("src"), attributes.get("href")}


def _check_site(app, error):
    """Warn of pages that load something from elsewhere, or lack what they refer to."""
    if error or app.builder.name != "html" or not to_mathml:
        return
    logger = logging.getLogger(__name__)
    root = Path(app.outdir).resolve()
    names = [*app.env.all_docs, "genindex", "search"]
    paths = [root / app.builder.get_target_uri(name) for name in names]
    pages = {path: _Loaded(path.read_text()) for path in paths}
    for path, page in pages.items():
        for url in {*page.assets, *page.links} - {None}:
            parts = urlsplit(url)
            if parts.scheme or parts.netloc:
                if url in page.assets and parts.scheme != "data":
                    logger.warning("%s loads %s", path.relative_to(root), url)
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchors = pages[target].anchors if target in pages and url in page.links else None
            if not target.exists():
                logger.warning("%s refers to %s, which is missing", path.relative_to(root), url)
            elif parts.fragment and anchors and unquote(parts.fragment) not in anchors:
                logger.warning("%s refers to %s, no such place", path.relative_to(root), url)
    for path in root.rglob("*.css"):
        if re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", path.read_text()):
            logger.warning("%s loads from another host", path.relative_to(root))


def setup(app):
    """Register how formulas are written, and what is checked once the pages are there."""
    if to_mathml:
        app.add_html_math_renderer("mathml", (_visit_math, None), (_visit_math_block, None))
    app.connect("build-finished", _check_site)


_tables()
_changelog()
