"""Import the handler named ``module:handler`` on the command line, or explain why the import fails."""

import difflib
import importlib
import inspect
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import cast

from smoothcluster.cli.logs import log
from smoothcluster.errors import UsageError
from smoothcluster.model import Handler


def load_handler(target: str) -> Handler:
    """Return the handler named *target*. Modules in the current directory come first.

    Raise UsageError if *target* does not have the form module:handler, if the module does not exist or cannot be
    imported, if the module has no such attribute, or if the attribute is no handler.
    """
    name, colon, path = target.partition(":")
    if not (colon and path):
        raise UsageError(f"{target!r} names no handler; write module:function, such as crawl:fetch")
    if name.endswith(".py") or "/" in name:
        raise UsageError(f"{name!r} is a file; name the module, such as {Path(name).stem}:{path}")
    if not all(part.isidentifier() for part in name.split(".")):
        raise UsageError(f"{name!r} is not the name of a module; write module:function, such as crawl:fetch")
    try:
        here = str(Path.cwd())
    except OSError:  # Somebody has removed the current directory: the module may be elsewhere.
        here = ""
    if here and here not in sys.path:
        sys.path.insert(0, here)
    return _handler(_module(name, here or "the current directory, which is gone,"), target, path)


def _module(name: str, here: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise UsageError(f"there is no module {error.name!r} in {here} or among the installed modules") from None
        raise _broken(name, error) from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # A module may raise SystemExit, or any exception of a test's tool.
        raise _broken(name, error) from error


def _broken(name: str, error: BaseException) -> UsageError:
    """Return the error for a module that raises during import, with the place of the exception."""
    log.debug("the import of %s raised this exception:", name, exc_info=error)
    last = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{last.filename}, line {last.lineno}"
    if isinstance(error, SyntaxError) and error.filename:
        place = f"{error.filename}, line {error.lineno}"
    what = f"{type(error).__name__}: {error}".removesuffix(": ")
    return UsageError(f"the import of module {name!r} raised {what} ({place}); --verbose shows the stack trace")


def _handler(module: ModuleType, target: str, path: str) -> Handler:
    found: object = module
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            near = difflib.get_close_matches(part, dir(found), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            where = getattr(module, "__file__", None) or "without a file"
            raise UsageError(f"module {module.__name__!r} ({where}) has no {path!r}{hint}") from None
        except Exception as error:
            raise _broken(module.__name__, error) from error  # The module's own code makes the attribute.
    if not callable(found) or inspect.isclass(found):
        raise UsageError(f"{target} is {found!r:.80} and no handler; name a function of a task and a context")
    return cast("Handler", found)
