"""What commands say on standard error, with secrets taken out.

Only the library's own loggers are dealt with; all others are left to the user's module, which
may set up logging as it likes.
"""

import logging
import re
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import final

import click

log = logging.getLogger("smoothcluster.cli")
"""What a command tells while it works."""

_USERINFO_PATTERN = re.compile(r"(?<=://)[^\s/]+@")
_secrets: dict[str, str] = {}


def hide(url: str) -> None:
    """From now on, show nothing of what *url* holds of secrets, whoever puts it into a message."""
    rest = url.partition("://")[2] or url
    userinfo, _, place = rest.rpartition("@")
    query = place.partition("?")[2]
    _hide(userinfo.partition(":")[2], "***")
    _hide(f"{userinfo}@", "***@")
    _hide(f"?{query}", "?***")


def hide_word(secret: str) -> None:
    """From now on, do not show *secret*."""
    _hide(secret, "***")


def _hide(secret: str, shown: str) -> None:
    if len(secret) > 3:  # Less than that would make every message unreadable, and guards nothing.
        _secrets[secret] = _secrets[repr(secret)[1:-1]] = shown


def scrubbed(text: str) -> str:
    """*text* without credentials."""
    for secret, shown in _secrets.items():
        text = text.replace(secret, shown)
    return _USERINFO_PATTERN.sub("***@", text)


@final
class _Teller(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        # Standard error may be closed, a pipe whose reader has died, on a disk that is full: no reason to stop working.
        with suppress(OSError, ValueError):
            click.echo(scrubbed(self.format(record)), err=True)


def _new_teller(level: int) -> _Teller:
    teller = _Teller(level)
    teller.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    return teller


_teller = _new_teller(logging.DEBUG)


@contextmanager
def logging_to_stderr() -> Generator[None]:
    """Have the library's warnings, and what commands tell, appear on standard error."""
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
    """Have what *backend*'s adapter warns of appear, too; and collect it."""
    warnings: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.WARNING:
                warnings.append(scrubbed(record.getMessage()))

    adapter = logging.getLogger(type(backend).__module__.partition(".")[0])
    # Drivers tell of every connection; that is for those who want to hear more.
    teller = _new_teller(logging.DEBUG if log.isEnabledFor(logging.DEBUG) else logging.WARNING)
    handlers = [Collector()] if adapter.name == "smoothcluster" else [Collector(), teller]
    before, adapter.propagate = adapter.propagate, False
    for handler in handlers:
        adapter.addHandler(handler)
    try:
        yield warnings
    finally:
        adapter.propagate = before
        for handler in handlers:
            adapter.removeHandler(handler)


def log_everything() -> None:
    """Tell everything."""
    logging.getLogger("smoothcluster").setLevel(logging.DEBUG)
    log.setLevel(logging.DEBUG)
