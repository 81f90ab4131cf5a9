"""How the pages become a site: ``tox run -e docs``. They read as well where nothing is built."""

from typing import Any

project = "smoothcluster"
copyright = "the smoothcluster authors"  # noqa: A001  # Sphinx's name
extensions = ["myst_parser"]
html_theme = "furo"
html_title = project

# The checkout is the source, so that pages link to whatever is in it.
include_patterns = ["*.md", "docs/**.md", "backends/**.md", "examples/**.md", "changelog.d/README.md"]
root_doc = "docs/README"
myst_heading_anchors = 4

NAVIGATION = {
    "Learn": ["tutorial/first-cluster"],
    "Do": ["howto/*"],
    "Look up": ["reference/*"],
    "Understand": ["explanation/*", "decisions/*"],
    "The project": ["../README", "../CONTRIBUTING", "../CHANGELOG", "../changelog.d/README"],
    "Backends": ["../backends/README", "../backends/*/README", "../examples/*/README"],
}
"""The bar at the side. A page that is in none of these is a warning, and so an error."""


def add_navigation(app: Any, page: str, source: list[str]) -> None:  # noqa: ARG001  # as Sphinx calls it
    """Give the first page the table of contents that Sphinx wants, which readers of its source need not see."""
    if page == root_doc:
        for caption, pages in NAVIGATION.items():
            names = "\n".join(pages)
            source[0] += f"\n```{{toctree}}\n:hidden:\n:glob:\n:caption: {caption}\n\n{names}\n```\n"


def setup(app: Any) -> None:
    """Have it done."""
    app.connect("source-read", add_navigation)
