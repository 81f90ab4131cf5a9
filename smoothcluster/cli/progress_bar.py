"""A progress bar on standard error if standard error is a terminal; otherwise messages alone.

Only a terminal needs rich, so the module imports rich late: other calls start sooner.
"""

import sys
from abc import abstractmethod
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, final

from smoothcluster.cli.formatting import one_line
from smoothcluster.cli.logs import scrubbed
from smoothcluster.cli.output import print_message

if TYPE_CHECKING:
    from rich.progress import Progress


class Bar(Protocol):
    """A display of progress, with messages meanwhile."""

    @abstractmethod
    def show(self, done: int, total: int | None = None) -> None:
        """Show *done*, and the new *total* if given."""

    @abstractmethod
    def print_line(self, text: str) -> None:
        """Print a line that stays, above the bar."""


@final
class Plain(Bar):
    """Messages without a bar."""

    def show(self, done: int, total: int | None = None) -> None:
        """Show nothing."""

    def print_line(self, text: str) -> None:
        print_message(text)


@final
class Moving(Bar):
    """A bar drawn by rich."""

    def __init__(self, progress: "Progress", what: str, total: int | None) -> None:
        self._progress = progress
        self._task = progress.add_task(what, total=total, pace="")

    def show(self, done: int, total: int | None = None) -> None:
        pace = self._progress.tasks[0].speed
        self._progress.update(self._task, completed=done, total=total, pace=f"{pace:,.0f}/s" if pace else "")

    def print_line(self, text: str) -> None:
        self._progress.console.print(one_line(scrubbed(text)), markup=False)


@contextmanager
def shown(what: str, total: int | None, unit: str = "tasks") -> Generator[Bar]:
    """Show a bar labelled *what* for *total* of *unit*; None for an unknown total."""
    if not sys.stderr.isatty():
        yield Plain()
        return
    from rich.console import Console  # needed on a terminal only
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit),
        TextColumn("{task.fields[pace]}"), TimeElapsedColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True, highlight=False, soft_wrap=True)) as progress:
        yield Moving(progress, what, total)
