"""What people see of something that takes a while: a bar that moves, on a terminal; elsewhere nothing.

All of it goes to standard error. rich is imported only where somebody looks: other calls start
sooner without it.
"""

import sys
from abc import abstractmethod
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, final

import click

from smoothcluster.cli.logs import scrubbed

if TYPE_CHECKING:
    from rich.progress import Progress


class Bar(Protocol):
    """How far something has come, and what there is to say meanwhile."""

    @abstractmethod
    def show(self, done: int, total: int | None = None) -> None:
        """So many are done; *total*, if that has changed."""

    @abstractmethod
    def print_line(self, text: str) -> None:
        """A line that stays, above the bar."""


@final
class Plain(Bar):
    """Nothing but what is said."""

    def show(self, done: int, total: int | None = None) -> None:
        """Nobody looks."""

    def print_line(self, text: str) -> None:
        click.echo(scrubbed(text), err=True)


@final
class Moving(Bar):
    """One that rich draws."""

    def __init__(self, progress: "Progress", what: str, total: int | None) -> None:
        self._progress = progress
        self._task = progress.add_task(what, total=total, pace="")

    def show(self, done: int, total: int | None = None) -> None:
        pace = self._progress.tasks[0].speed
        self._progress.update(self._task, completed=done, total=total, pace=f"{pace:,.0f}/s" if pace else "")

    def print_line(self, text: str) -> None:
        self._progress.console.print(scrubbed(text), markup=False)


@contextmanager
def shown(what: str, total: int | None, unit: str = "tasks") -> Generator[Bar]:
    """A bar called *what*, for so many of *unit*; None if nobody knows how many."""
    if not sys.stderr.isatty():
        yield Plain()
        return
    from rich.console import Console  # where nobody looks it need not be imported
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit),
        TextColumn("{task.fields[pace]}"), TimeElapsedColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True, highlight=False, soft_wrap=True)) as progress:
        yield Moving(progress, what, total)
