"""The site that `make book` builds: README, notebooks with their stored outputs, docs, and the library's API.

Sphinx reads the project folder as it is, so every relative link means the same here as in a checkout. Nothing is
executed and nothing is fetched, neither by the build nor by a reader's browser.
"""

import os
import re
import tomllib
from importlib.util import find_spec
from pathlib import Path

from pygments.lexers import TextLexer

HERE = Path(__file__).resolve().parent
PROJECT = tomllib.loads((HERE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# Where the project is published; without it there is no Binder button, and pages are opened by downloading them.
REPOSITORY = os.environ.get("BOOK_REPOSITORY") or PROJECT.get("urls", {}).get("Repository", "")

project = PROJECT["name"]
author = "The mmsa-lib authors"
copyright = author
release = PROJECT["version"]
root_doc = "README"
include_patterns = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "data/README.md",
    "mmsa_lib/demo_model/README.md",
    "docs/**.md",
    "notebooks/*.ipynb",
    "book/api/*.rst",
]
exclude_patterns = [".*", "build", "runs", "**/.ipynb_checkpoints", "book/api/modules.rst"]
CONTENTS = {
    "Notebooks": ["notebooks/*"],
    "Methods": ["docs/methods/*"],
    "What is known, and from where": ["docs/README", "docs/*"],
    "Library": ["book/api/*", "data/README", "mmsa_lib/demo_model/README", "CONTRIBUTING", "CHANGELOG"],
}

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.apidoc"]
nb_execution_mode = "off"
nb_render_markdown_format = "myst"  # of outputs: with tables and formulas
nb_ipywidgets_js = {}  # would be fetched; widgets are stored as pictures
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_dmath_double_inline = True  # a displayed formula need not be a paragraph of its own
myst_heading_anchors = 4
apidoc_modules = [{"path": "../mmsa_lib", "destination": "book/api", "exclude_patterns": ["../mmsa_lib/cli/*"]}]
apidoc_module_first = True
autodoc_default_options = {"members": True, "ignore-module-all": True, "show-inheritance": True}
napoleon_use_ivar = True
suppress_warnings = ["ref.python"]  # an attribute's name, which several classes have, is looked up as a link
toc_object_entries = False  # in every page's contents they would take half of the building time
autodoc_member_order = "bysource"

html_theme = "sphinx_book_theme"
html_title = "Multimodal sentiment analysis: a companion to four papers"
html_theme_options = {"home_page_in_toc": True, "max_navbar_depth": 2, "navbar_persistent": []}
html_context = {"default_mode": "light"}  # as the pictures are
html_show_search_summary = False  # it is fetched, which a page opened as a file may not do
if REPOSITORY:
    html_theme_options |= {
        "repository_url": REPOSITORY,
        "use_repository_button": True,
        "repository_branch": "main",
        "launch_buttons": {"binderhub_url": "https://mybinder.org", "notebook_interface": "jupyterlab"},
    }
html_extra_path = ["index.html"]
html_css_files = ["site.css"]
MATHJAX = Path(find_spec("sphinx-mathjax-offline").submodule_search_locations[0])
html_static_path = ["site.css", str(MATHJAX / "static" / "mathjax" / "tex-svg.js")]
mathjax_path = "tex-svg.js"  # one file with its glyphs: no font to fetch, which a page opened as a file may not do
# Dollars stand around formulas in HTML, as in hidden answers; in signatures they do not.
mathjax3_config = {"tex": {"inlineMath": [["\\(", "\\)"], ["$", "$"]]}, "options": {"ignoreHtmlClass": "sig"}}
html_assets_policy = "always"
myst_update_mathjax = False


def setup(app):
    for language in ("mermaid", "csv"):  # Pygments knows neither
        app.add_lexer(language, TextLexer)
    app.connect("source-read", adapt)


def adapt(app, docname, source):
    """Give README, which GitHub shows too, the site's table of contents, and links the form that they have here."""
    folder = app.env.doc2path(docname).parent

    def without_folders(link):  # a folder has no page
        return link[1] if (folder / link[2]).is_dir() else link[0]

    source[0] = re.sub(r"(?<!!)\[([^]\n]*)\]\(([^)\s:#]+)\)", without_folders, source[0])
    # Sphinx leaves links in HTML alone. Quotation marks in a notebook's file have backslashes.
    source[0] = re.sub(r"""(<a href=\\?["'][^"':#]+)\.(md|ipynb)(?=[\\"'#])""", r"\1.html", source[0])
    if docname == root_doc:
        for caption, pages in CONTENTS.items():
            listed = "\n".join(pages)
            source[0] += f"\n```{{toctree}}\n:caption: {caption}\n:hidden:\n:glob:\n\n{listed}\n```\n"
