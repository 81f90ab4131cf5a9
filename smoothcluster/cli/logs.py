"""Log lines of commands on standard error, without secrets and without characters that act on a terminal.

This module configures the library's loggers alone. The user's module may configure all other loggers.
"""

import logging
import re
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import final

import click

from smoothcluster.cli.formatting import one_line, plain

log = logging.getLogger("smoothcluster.cli")
"""The log of a command at work."""

_USERINFO_PATTERN = re.compile(r"(?<=://)[^\s/]+@")
_secrets: dict[str, str] = {}


def hide(url: str) -> None:
    """From now on, replace the secrets of *url* in all messages."""
    rest = url.partition("://")[2] or url
    userinfo, _, place = rest.rpartition("@")
    query = place.partition("?")[2]
    _hide(userinfo.partition(":")[2], "***")
    _hide(f"{userinfo}@", "***@")
    _hide(f"?{query}", "?***")


def hide_word(secret: str) -> None:
    """From now on, replace *secret* in all messages."""
    _hide(secret, "***")


def _hide(secret: str, shown: str) -> None:
    if len(secret) > 3:  # A shorter secret protects nothing, and replacing it would garble every message.
        _secrets[secret] = _secrets[repr(secret)[1:-1]] = shown


def scrubbed(text: str) -> str:
    """Return *text* without credentials."""
    for secret, shown in _secrets.items():
        text = text.replace(secret, shown)
    return _USERINFO_PATTERN.sub("***@", text)


_TRACE_MARGIN = "  | "
"""Before each line of a stack trace, which may hold texts of strangers: such a line must not pass for a record."""


@final
class _LineFormatter(logging.Formatter):
    """Formats a record as a single line, with a stack trace below, and lets no text act on the terminal."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # as `logging` calls it
        # Without credentials first: the filter could change a password beyond recognition.
        return one_line(scrubbed(super().formatMessage(record)))

    def format(self, record: logging.LogRecord) -> str:
        line, *trace = super().format(record).split("\n")
        shown = scrubbed("\n".join(trace)).split("\n") if trace else []
        return "\n".join([line, *(_TRACE_MARGIN + plain(each) for each in shown)])


@final
class _Teller(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        # Standard error may be closed, a broken pipe, or on a full disk. The command continues without the log line.
        with suppress(OSError, ValueError):
            click.echo(self.format(record), err=True)


def _new_teller(level: int) -> _Teller:
    teller = _Teller(level)
    teller.setFormatter(_LineFormatter())
    return teller


_teller = _new_teller(logging.DEBUG)


@contextmanager
def logging_to_stderr() -> Generator[None]:
    """Show the library's warnings and the commands' log lines on standard error."""
    library = logging.getLogger("smoothcluster")
    before = library.level, library.propagate, log.level
    library.propagate = False
    library.setLevel(logging.WARNING)
    log.setLevel(logging.INFO)
    library.addHandler(_teller)
    try:
        yield
    finally:
        library.removeHandler(_teller)
        library.level, library.propagate, log.level = before


@contextmanager
def adapter_logging_to_stderr(backend: object) -> Generator[list[str]]:
    """Show and collect the warnings of *backend*'s adapter."""
    warnings: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.WARNING:
                warnings.append(scrubbed(record.getMessage()))

    adapter = logging.getLogger(type(backend).__module__.partition(".")[0])
    # Drivers log every connection, so the driver's own lines appear with --verbose only.
    verbose = log.isEnabledFor(logging.DEBUG)
    teller = _new_teller(logging.DEBUG if verbose else logging.WARNING)
    drivers = _loggers_below(adapter.name) if verbose and adapter.name != "smoothcluster" else []
    levels = [driver.level for driver in drivers]
    for driver in drivers:
        driver.setLevel(logging.INFO)
    handlers = [Collector()] if adapter.name == "smoothcluster" else [Collector(), teller]
    before, adapter.propagate = adapter.propagate, False
    for handler in handlers:
        adapter.addHandler(handler)
    try:
        yield warnings
    finally:
        adapter.propagate = before
        for driver, level in zip(drivers, levels, strict=True):
            driver.setLevel(level)
        for handler in handlers:
            adapter.removeHandler(handler)


def _loggers_below(name: str) -> list[logging.Logger]:
    """Return the loggers that adapters make for their drivers, such as ``smoothcluster_zookeeper.kazoo``."""
    known = [each for each in logging.root.manager.loggerDict if each.startswith(f"{name}.")]
    return [logging.getLogger(each) for each in known]


def log_everything() -> None:
    """Log everything (``--verbose``)."""
    logging.getLogger("smoothcluster").setLevel(logging.DEBUG)
    log.setLevel(logging.DEBUG)
