"""A small site of real pages: the modules of Python's standard library, each linked to the modules it imports."""

import html
import re
import threading
from collections.abc import Iterable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self, final

_IMPORT_PATTERN = re.compile(r"^\s*(?:from|import)\s+(\w+)", re.MULTILINE)
_LINK_PATTERN = re.compile(r'href="([^"]+)"')

INDEX_PATH = "/index.html"

STANDARD_LIBRARY = Path(re.__file__).parents[1]
"""The folder of the running Python's modules. The number of modules differs from Python to Python."""


def pages(library: Path = STANDARD_LIBRARY) -> dict[str, str]:
    """Return the pages of the site by path.

    The index links to a page for each first letter. The page of a letter links to modules, and modules link to each
    other.
    """
    sources = {path.stem: path.read_text(errors="replace") for path in sorted(library.glob("*.py"))}
    letters: dict[str, list[str]] = {}
    for name in sources:
        letters.setdefault(name[0].lower(), []).append(name)
    found = {INDEX_PATH: _page("The standard library", (f"letter-{letter}" for letter in letters))}
    for letter, names in letters.items():
        found[f"/letter-{letter}.html"] = _page(f"Modules with {letter}", names)
    for name, text in sources.items():
        imported = sorted({module for module in _IMPORT_PATTERN.findall(text) if module in sources})
        found[f"/{name}.html"] = _page(name, imported, text)
    return found


def _page(title: str, links: Iterable[str], text: str = "") -> str:
    items = "".join(f'<li><a href="/{link}.html">{link}</a></li>' for link in links)
    name, body = html.escape(title), html.escape(text)
    return f"<title>{name}</title><h1>{name}</h1><ul>{items}</ul><pre>{body}</pre>"


def links(page: str) -> list[str]:
    """Return the paths that a page links to."""
    return _LINK_PATTERN.findall(page)


@final
class Site:
    """A web server in a thread, with the pages of *content* on a free port of the loopback address."""

    def __init__(self, content: Mapping[str, str]) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                page = content.get(self.path)
                body = b"" if page is None else page.encode()
                self.send_response(404 if page is None else 200)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base's name
                """Write no log."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, name="smoothcluster-demo-site", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
