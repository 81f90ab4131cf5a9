"""Find the class of a results sink by the scheme of the URL."""

import re
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import cast

from smoothcluster.arguments import check_text
from smoothcluster.errors import MissingDriverError, UsageError
from smoothcluster.sinks.options import sink_options
from smoothcluster.sinks.protocol import ResultSink

SINK_ENTRY_POINT_GROUP = "smoothcluster.sinks"
"""The entry-point group in which packages register sinks of their own, by the scheme."""

_DATABASE_SCHEMES = frozenset(
    {"cockroachdb", "mariadb", "mssql", "mysql", "oracle", "postgres", "postgresql", "sqlite"}
)
"""Schemes of databases; all other schemes belong to file systems. `SqlSink` accepts some databases only."""

_URL_PATTERN = re.compile(r"([a-zA-Z][a-zA-Z0-9.-]*)(\+[a-zA-Z0-9_]+)?://")

_CLASSES_BY_EXTRA = {"files": ("FileSink", "fsspec"), "sql": ("SqlSink", "sqlalchemy")}
"""Extra and module: the class in the module, and the library that the extra installs."""


def open_sink(url: str, options: Mapping[str, object] | None = None) -> ResultSink:
    """Return the results sink for *url*; make no request to the sink yet.

    *options* are credentials and settings. Without this argument, the options are those in the variable
    ``SMOOTHCLUSTER_RESULTS_OPTIONS``: a JSON object, or the path of a file with a JSON object. A file system gets the
    options as keywords of its fsspec class; a database gets ``username`` and ``password``, and its driver the others.

    Raise UsageError for a wrong URL, a URL with credentials, or a wrong option, and MissingDriverError with the package
    to install.
    """
    check_text("the URL of a results sink", url)
    match = _URL_PATTERN.match(url)
    if match is None:  # The text may be a password by mistake: show no part.
        raise UsageError("a results sink needs a URL, as in file:///data/out, s3://bucket/crawl or sqlite:///items.db")
    given = sink_options() if options is None else dict(options)
    scheme = match[0].removesuffix("://").lower()
    url = f"{scheme}://{url[match.end() :]}"
    registered = [*entry_points(group=SINK_ENTRY_POINT_GROUP, name=scheme)]
    if registered:
        return _made(registered[0].load(), url, given)
    extra = "sql" if match[2] or scheme in _DATABASE_SCHEMES else "files"
    class_name, library = _CLASSES_BY_EXTRA[extra]
    try:
        module = import_module(f"smoothcluster.sinks.{extra}")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != library:
            raise
        raise MissingDriverError(
            f"{scheme}:// needs a library that is not installed ({library}): pip install 'smoothcluster[{extra}]'"
        ) from None
    return _made(getattr(module, class_name), url, given)


def _made(kind: object, url: str, options: Mapping[str, object]) -> ResultSink:
    from_url = cast("Callable[..., ResultSink] | None", getattr(kind, "from_url", None))
    if from_url is None:
        raise TypeError(f"{kind!r:.80}, registered as a results sink, has no from_url")
    return from_url(url, **options)
