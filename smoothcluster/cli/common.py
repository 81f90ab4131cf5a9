"""Shared parts of all commands: common options, error messages, exit statuses."""

import errno
import os
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from enum import IntEnum
from io import TextIOWrapper
from typing import Any, TextIO, TypeGuard, TypeVar, cast

import click

from smoothcluster.backend import CoordinationBackend
from smoothcluster.cli import logs
from smoothcluster.cli.backend_options import backend_options
from smoothcluster.cli.output import print_message
from smoothcluster.errors import BackendError, SinkUnavailableError, UsageError
from smoothcluster.registry import BACKEND_VARIABLE, connect
from smoothcluster.server_options import OPTIONS_VARIABLE

HELP_EPILOG = f"""\b
{BACKEND_VARIABLE} is the default for --backend. If neither is given, the
command uses a sqlite file of the user and prints the path of the file.
{OPTIONS_VARIABLE} names a file with options of the backend, passwords
included, as a JSON object.

\b
Exit status:
  0    success; also after Ctrl-C or SIGTERM where a signal ends the command
  1    any failure not listed here
  2    the call is wrong; the message says how to correct the call
  3    the store or results sink is unreachable, or refused the request
  130  Ctrl-C interrupted the command before the end
"""

STORE_RETRY_SECONDS = 3.0
"""Seconds for which a command retries while the store is out of reach. A single request may take longer."""

STDOUT_DESCRIPTOR, STDERR_DESCRIPTOR = 1, 2
"""File descriptors of the process's output."""

F = TypeVar("F", bound=Callable[..., Any])


class Exit(IntEnum):
    """The exit status of the process."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    STORE = 3
    INTERRUPTED = 130


class Failure(click.ClickException):
    """A command failed: the message is a single line for people, *status* the exit status."""

    def __init__(self, message: str, status: Exit) -> None:
        super().__init__(message)
        self.status = status


class Commands(click.Group):
    """A group of commands that reports each error as a single line and an exit status.

    With ``--verbose`` a stack trace comes before the line.
    """

    def invoke(self, ctx: click.Context) -> Any:
        try:
            super().invoke(ctx)
            if sys.stdout is not None:  # pyright: ignore[reportUnnecessaryComparison]  # as after >&-
                sys.stdout.flush()
        except BrokenPipeError:
            pass  # The reader of the output has closed the pipe, like `head`.
        except KeyboardInterrupt:
            raise Failure("Ctrl-C interrupted the command", Exit.INTERRUPTED) from None
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            raise failure(error) from error

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,  # noqa: FBT001, FBT002  # click's signature
        **extra: Any,
    ) -> Any:
        with logs.logging_to_stderr(), writable_output():
            try:
                status: int = super().main(args, prog_name, complete_var, standalone_mode=False, **extra) or Exit.DONE
            except click.ClickException as error:
                logs.log.debug("the command failed with this exception:", exc_info=error)
                _print_error(error)
                status = error.status if isinstance(error, Failure) else error.exit_code
            except click.Abort:
                status = Exit.INTERRUPTED
            except (
                OSError
            ) as error:  # For example a full disk while click prints a help text; `invoke` has handled the commands.
                _print_error(failure(error))
                status = Exit.FAILED
        if standalone_mode:
            for stream, descriptor in ((sys.stdout, STDOUT_DESCRIPTOR), (sys.stderr, STDERR_DESCRIPTOR)):
                _give_up(stream, descriptor)
            sys.exit(status)
        return status


def _is_full(error: Exception) -> TypeGuard[OSError]:
    """Whether *error* came from writing the output. The error of an opened file would name the file."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT) and error.filename is None


def _give_up(stream: TextIO | None, descriptor: int) -> None:
    """Drop output that *stream* cannot write.

    Otherwise Python would try again at exit and change the exit status.
    """
    try:
        if stream is not None:  # as after >&-
            stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)


def failure(error: Exception) -> Failure:
    """Return the message and the exit status for *error*."""
    if _is_full(error):
        return Failure(f"the output cannot be written: {error.strerror}", Exit.FAILED)
    if isinstance(error, UsageError):
        return Failure(str(error), Exit.USAGE)
    if isinstance(error, BackendError | SinkUnavailableError):
        return Failure(str(error) or type(error).__name__, Exit.STORE)
    return Failure(f"{type(error).__name__}: {error}", Exit.FAILED)


def _print_error(error: click.ClickException) -> None:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return
    text = " ".join(error.format_message().split())
    if isinstance(error, click.UsageError) and error.ctx is not None:
        text = f"{text.removesuffix('.')}; see: {error.ctx.command_path} --help"
    with suppress(OSError, ValueError):  # Standard error is full or closed: the exit status says that much.
        print_message(f"Error: {text}")


@contextmanager
def writable_output() -> Generator[None]:
    r"""Write characters that the terminal's encoding lacks as escapes, such as ``\u2603``, instead of failing."""
    changed: list[tuple[TextIOWrapper, str]] = []
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # None after >&-; a program that calls a command may have other objects.
            text = cast("TextIOWrapper", stream)
            changed.append((text, text.errors or "strict"))
            text.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        for stream, errors in changed:
            with suppress(OSError, ValueError):  # `reconfigure` flushes, and the stream may be full or closed.
                stream.reconfigure(errors=errors)


def verbose(command: F) -> F:
    """Give *command* the option ``--verbose``."""

    def tell_more(ctx: click.Context, option: click.Parameter, wanted: bool) -> None:  # noqa: ARG001, FBT001  # click's signature
        if wanted:
            logs.log_everything()

    words = "Log more to standard error, with stack traces."
    return click.option(
        "-v", "--verbose", is_flag=True, is_eager=True, expose_value=False, callback=tell_more, help=words
    )(command)


def common(command: F) -> F:
    """Give *command* the options of all commands on a group: ``--group``, ``--backend`` and ``--verbose``."""
    where = "The group's store, such as zookeeper://127.0.0.1:2181. "
    where += f"The default is {BACKEND_VARIABLE}, or else a sqlite file of the user."
    command = verbose(command)
    command = click.option("--backend", "url", metavar="URL", help=where)(command)
    return click.option("--group", metavar="NAME", default="default", show_default=True, help="Name of the group.")(
        command
    )


@contextmanager
def opened(url: str | None) -> Generator[CoordinationBackend]:
    """Open the backend at *url*, by default at the environment's URL; close the backend in the end.

    Without either, open the default store and print its URL on standard error.
    """
    named = url or os.environ.get(BACKEND_VARIABLE, "")
    logs.hide(named)
    options = backend_options()
    if "url" in options:
        raise UsageError(f"{OPTIONS_VARIABLE} names a file with an option url: give the URL as --backend instead")
    backend = connect(url, **options)
    if not named:
        print_message(f"this command is using {backend.url}; --backend or {BACKEND_VARIABLE} names another store")
    try:
        with logs.adapter_logging_to_stderr(backend):
            yield backend
    finally:
        backend.close()
