"""What all commands have in common: options, how errors are told, how the process ends."""

import errno
import os
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from enum import IntEnum
from typing import Any, TextIO, TypeGuard, TypeVar

import click

from smoothcluster.backend import CoordinationBackend
from smoothcluster.cli import logs
from smoothcluster.cli.backend_options import OPTIONS_VARIABLE, backend_options
from smoothcluster.errors import BackendError, UsageError
from smoothcluster.registry import BACKEND_VARIABLE, connect

HELP_EPILOG = f"""\b
{BACKEND_VARIABLE} is the default for --backend; without it, a file of the user's own is used, and its path is told.
{OPTIONS_VARIABLE} names a file with the backend's options, passwords among them, as a JSON object.

\b
Exit status:
  0    done; also after Ctrl-C or SIGTERM where that is the way to end it
  1    anything not listed here
  2    the call is wrong: the message says how to mend it
  3    the store could not be reached, or refused
  130  interrupted by Ctrl-C before it was done
"""

STORE_RETRY_SECONDS = 3.0
"""Seconds for which a command goes on asking a store that is away; one question may take the backend longer."""

STDOUT_DESCRIPTOR, STDERR_DESCRIPTOR = 1, 2
"""The descriptor."""

F = TypeVar("F", bound=Callable[..., Any])


class Exit(IntEnum):
    """The process's exit status."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    STORE = 3
    INTERRUPTED = 130


class Failure(click.ClickException):
    """The command failed: one line for people, and the exit status."""

    def __init__(self, message: str, status: Exit) -> None:
        super().__init__(message)
        self.status = status


class Commands(click.Group):
    """A group of commands whose every error is one line and a status.

    A stack trace is only shown with ``--verbose``, before the line.
    """

    def invoke(self, ctx: click.Context) -> Any:
        try:
            super().invoke(ctx)
            if sys.stdout is not None:  # pyright: ignore[reportUnnecessaryComparison]  # as after >&-
                sys.stdout.flush()
        except BrokenPipeError:
            pass  # Whoever read it has had enough.
        except KeyboardInterrupt:
            raise Failure("interrupted", Exit.INTERRUPTED) from None
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            raise failure(error) from error

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,  # noqa: FBT001, FBT002  # click's own
        **extra: Any,
    ) -> Any:
        with logs.logging_to_stderr():
            try:
                status: int = super().main(args, prog_name, complete_var, standalone_mode=False, **extra) or Exit.DONE
            except click.ClickException as error:
                logs.log.debug("what led to it:", exc_info=error)
                _print_error(error)
                status = error.status if isinstance(error, Failure) else error.exit_code
            except click.Abort:
                status = Exit.INTERRUPTED
            except OSError as error:  # There was no room for a help, say; whatever commands do is a failure by now.
                _print_error(failure(error))
                status = Exit.FAILED
        if standalone_mode:
            for stream, descriptor in ((sys.stdout, STDOUT_DESCRIPTOR), (sys.stderr, STDERR_DESCRIPTOR)):
                _give_up(stream, descriptor)
            sys.exit(status)
        return status


def _is_full(error: Exception) -> TypeGuard[OSError]:
    """Whether it comes of writing the output: an error of a file that was opened names it."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT) and error.filename is None


def _give_up(stream: TextIO | None, descriptor: int) -> None:
    """Have what could not be written to *stream* not tried again at exit, whose status would tell of it."""
    try:
        if stream is not None:  # as after >&-
            stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)


def failure(error: Exception) -> Failure:
    """How *error* is told."""
    if _is_full(error):
        return Failure(f"cannot write the output: {error.strerror}", Exit.FAILED)
    if isinstance(error, UsageError):
        return Failure(str(error), Exit.USAGE)
    if isinstance(error, BackendError):
        return Failure(str(error) or type(error).__name__, Exit.STORE)
    return Failure(f"{type(error).__name__}: {error}", Exit.FAILED)


def _print_error(error: click.ClickException) -> None:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return
    text = " ".join(error.format_message().split())
    if isinstance(error, click.UsageError) and error.ctx is not None:
        text = f"{text.removesuffix('.')}; see: {error.ctx.command_path} --help"
    click.echo(f"Error: {logs.scrubbed(text)}", err=True)


def verbose(command: F) -> F:
    """Give *command* the option ``--verbose``."""

    def tell_more(ctx: click.Context, option: click.Parameter, wanted: bool) -> None:  # noqa: ARG001, FBT001  # click's
        if wanted:
            logs.log_everything()

    words = "Tell more on standard error, stack traces included."
    return click.option(
        "-v", "--verbose", is_flag=True, is_eager=True, expose_value=False, callback=tell_more, help=words
    )(command)


def common(command: F) -> F:
    """Give *command* the options that all have which deal with a group: *group* and *url*."""
    where = "Where the group lives, as zookeeper://127.0.0.1:2181; "
    where += f"{BACKEND_VARIABLE}, else the user's own file, if not given."
    command = verbose(command)
    command = click.option("--backend", "url", metavar="URL", help=where)(command)
    return click.option("--group", metavar="NAME", default="default", show_default=True, help="Which group.")(command)


@contextmanager
def opened(url: str | None) -> Generator[CoordinationBackend]:
    """The backend at *url*, at the environment's, or at the default, which is told then; closed in the end."""
    named = url or os.environ.get(BACKEND_VARIABLE, "")
    logs.hide(named)
    backend = connect(url, **backend_options())
    if not named:
        click.echo(f"using {backend.url}; --backend or {BACKEND_VARIABLE} names another store", err=True)
    try:
        with logs.adapter_logging_to_stderr(backend):
            yield backend
    finally:
        backend.close()
