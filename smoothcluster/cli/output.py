"""The only place where commands write lines: data to standard output, messages to standard error.

Every line passes `formatting.plain`, because texts of tasks, web pages, servers and other members come from strangers.
Log lines pass the same filter in `logs`. JSON is written here, too.
"""

import json
import sys

import click

from smoothcluster.cli.formatting import one_line, plain
from smoothcluster.cli.logs import scrubbed


def json_text(value: object, *, ascii_only: bool = True) -> str:
    """Write *value* as JSON that every parser accepts: null in place of a number that is infinite or no number.

    Values and events come from other programs, and Python's own JSON has such numbers.
    """
    try:
        return json.dumps(value, allow_nan=False, ensure_ascii=ascii_only)
    except ValueError:
        plain_value = json.loads(json.dumps(value), parse_constant=lambda _: None)
        return json.dumps(plain_value, ensure_ascii=ascii_only)


def print_data(line: str, *, flush: bool = False) -> None:
    """Print a line of data. Tabs, which separate columns for scripts, stay.

    Text and line end go out in a single write: `print` writes them one after the other if PYTHONUNBUFFERED is set, so
    lines of several processes could merge.
    """
    if sys.stdout is not None:  # pyright: ignore[reportUnnecessaryComparison]  # as after >&-
        sys.stdout.write("\t".join(map(plain, line.split("\t"))) + "\n")
        if flush:
            sys.stdout.flush()


def print_message(text: str) -> None:
    """Print a message for people, without credentials, as a single line on standard error."""
    click.echo(one_line(scrubbed(text)), err=True)
