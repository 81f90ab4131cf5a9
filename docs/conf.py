"""How the pages become a site: ``tox run -e docs``. The pages also read well in a plain checkout."""

import re
from enum import Enum
from importlib import import_module
from typing import Any

project = "smoothcluster"
copyright = "the smoothcluster authors"  # noqa: A001  # Sphinx's name
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.graphviz",
]
html_theme = "furo"
html_title = project
highlight_language = "text"  # Where nothing is said; docstrings also draw trees.

# The checkout is the source, so that pages link to every file in the checkout.
include_patterns = ["*.md", "docs/**.md", "docs/**.rst", "backends/**.md", "examples/**.md", "changelog.d/README.md"]

# Web servers open index.html, and Sphinx names a page of the site after its source: so the front page is index.md,
# beside the README. A redirect from index.html to docs/README would be no page: no side bar, no search.
root_doc = "index"
myst_heading_anchors = 4

# Docstrings name things in `single backticks`: Sphinx links each name that has a place on the site.
default_role = "py:obj"
autodoc_default_options = {"members": True, "undoc-members": True}
autodoc_inherit_docstrings = False  # A backend has the methods of the protocol: these are described once, there.
autodoc_member_order = "bysource"
autodoc_type_aliases = {"JSON": "smoothcluster.model.JSON"}
python_maximum_signature_line_length = 88

nitpick_ignore_regex = [
    # Docstrings also name parameters, fields and extras in backticks, and these have no place of their own.
    ("py:obj", r".*"),
    # Types of Python, of other libraries (links to their pages would need the network for each build) and of modules
    # that are not public. A type of a public module must have its place.
    ("py:.*", r"(?!smoothcluster(\.(backend|clock|errors|model|recipes(\.\w+)?))?\.[A-Z]).*"),
]

graphviz_output_format = "svg"
graphviz_dot_args = [
    *("-Gbgcolor=white", "-Gpad=0.1", "-Gfontname=sans-serif", "-Gfontsize=11"),
    *("-Nfontname=sans-serif", "-Nfontsize=12", "-Nshape=box", "-Nstyle=rounded,filled", "-Nfillcolor=#eef3fa"),
    *("-Efontname=sans-serif", "-Efontsize=10", "-Ecolor=#555555"),
]

NAVIGATION = {
    "Learn": ["docs/README", "docs/tutorial/first-cluster"],
    "Do": ["docs/howto/*"],
    "Look up": ["docs/reference/*", "docs/reference/api/index"],
    "Understand": ["docs/explanation/*", "docs/decisions/*"],
    "The project": ["README", "CONTRIBUTING", "SECURITY", "CHANGELOG", "changelog.d/README"],
    "Backends": ["backends/README", "backends/*/README", "examples/*/README"],
}
"""The bar at the side. A page that is in none of these is a warning, and so an error."""


def add_navigation(app: Any, page: str, source: list[str]) -> None:  # noqa: ARG001  # as Sphinx calls it
    """Give the first page the table of contents that Sphinx wants, which readers of its source need not see."""
    if page == root_doc:
        for caption, pages in NAVIGATION.items():
            names = "\n".join(pages)
            source[0] += f"\n```{{toctree}}\n:hidden:\n:glob:\n:caption: {caption}\n\n{names}\n```\n"


def read_sections(app: Any, what: str, name: str, obj: object, options: Any, lines: list[str]) -> None:
    """Show the sections ``Args:`` and ``Attributes:`` as lists.

    As an extension, sphinx.ext.napoleon also takes the start of an attribute's docstring for a type: ``Seconds: …``.
    """
    if what in {"class", "exception", "function", "method"}:
        napoleon = import_module("sphinx.ext.napoleon")  # Where types are checked there is no Sphinx.
        lines[:] = napoleon.GoogleDocstring(lines, napoleon.Config(), app, what, name, obj, options).lines()


def show_signature(
    app: Any,  # noqa: ARG001  # as Sphinx calls it, here and below
    what: str,
    name: str,  # noqa: ARG001
    obj: Any,
    options: Any,  # noqa: ARG001
    signature: str | None,
    returns: str | None,
) -> tuple[str | None, str | None]:
    """Leave out the constructors of protocols and enumerations, which nobody calls; make defaults readable."""
    if what == "class" and (issubclass(obj, Enum) or getattr(obj, "_is_protocol", False)):
        return "", None
    if signature is None:
        return None, returns
    # A default that is a function, a class or the clock is shown by name.
    named = re.sub(r"<(?:function |class '[\w.]+\.)(\w+)'?>", r"\1", signature)
    return re.sub(r"<[\w.]+\.SystemClock object>", "SYSTEM_CLOCK", named), returns


def hide_rules(app: Any, what: str, name: str, obj: object, skip: bool, options: Any) -> bool | None:  # noqa: ARG001, FBT001
    """Leave out the tests of the conformance kit: an author of a backend writes the hooks only."""
    return True if name.startswith("test_") else None


def setup(app: Any) -> None:
    """Have it done."""
    app.connect("source-read", add_navigation)
    app.connect("autodoc-process-docstring", read_sections)
    app.connect("autodoc-process-signature", show_signature)
    app.connect("autodoc-skip-member", hide_rules)
