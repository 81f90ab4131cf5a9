"""References to handlers, so that a child process can import the same handler.

A child is a fresh interpreter and shares nothing with the parent but imports. So a child must find
the handler by name, as ``module:function``. For a handler of the started script the child imports
the file under another name, and this runs the top level of the file. So the script must keep the
work behind ``if __name__ == "__main__":``; any other script is refused.
"""

import ast
import importlib
import importlib.util
import sys
from dataclasses import asdict, dataclass
from functools import reduce
from pathlib import Path
from typing import Any, cast

from smoothcluster.model import Handler

CHILD_MAIN_MODULE = "__mp_main__"
"""The name under which a child imports the script, as `multiprocessing` does."""


@dataclass(frozen=True, slots=True)
class Origin:
    """The reference by which a child finds the handler."""

    module: str
    name: str
    script: str | None
    """The file to import as the module, if the module is the program's ``__main__``."""

    def to_json(self) -> dict[str, object]:
        """Return the fields as a JSON object for the child."""
        return asdict(self)


class NoOriginError(Exception):
    """A child cannot import the handler. The message gives the reason and the remedy."""


def origin_of(handler: Handler) -> Origin:
    """Return the origin of *handler*; raise NoOriginError if a child could not import the handler from there."""
    module, name = getattr(handler, "__module__", None), getattr(handler, "__qualname__", None)
    if not (isinstance(module, str) and isinstance(name, str)):
        raise NoOriginError(f"the handler is an object ({handler!r:.80}): make the handler a function of a module")
    if "<" in name:
        raise NoOriginError(f"{name} is defined inside a function: define the handler at the top level of a module")
    holder = sys.modules.get(module)
    found: object = reduce(lambda part, step: getattr(part, step, None), name.split("."), cast("object", holder))
    if found is not handler:
        raise NoOriginError(
            f"{module}:{name} is not the handler: a child finds functions and static methods, but no bound methods"
        )
    if module != "__main__":
        return Origin(module, name, None)
    spec = getattr(holder, "__spec__", None)
    if spec is not None and spec.name != "__main__":  # python -m package.module
        return Origin(spec.name.removesuffix(".__main__"), name, _guarded(getattr(holder, "__file__", None)))
    return Origin(CHILD_MAIN_MODULE, name, _guarded(getattr(holder, "__file__", None)))


def _guarded(file: str | None) -> str:
    """Return the script's file, if the script has a main guard, so that an import only defines things."""
    if file is None or not Path(file).is_file():
        raise NoOriginError("the handler was typed in, not read from a file: put the handler into a module")
    path = Path(file).resolve()
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError) as error:
        raise NoOriginError(f"{path} cannot be read: {error}") from None
    for node in tree.body:
        if isinstance(node, ast.If) and "__name__" in {
            each.id for each in ast.walk(node.test) if isinstance(each, ast.Name)
        }:
            return str(path)
    raise NoOriginError(f'{path} has no `if __name__ == "__main__":`, so an import would run the whole program')


def load(data: dict[str, Any]) -> Handler:
    """In a child: import the handler that the parent described. Exceptions of the import pass through."""
    module, name, script = str(data["module"]), str(data["name"]), data["script"]
    if script is None:
        holder = importlib.import_module(module)
    else:
        spec = importlib.util.spec_from_file_location(CHILD_MAIN_MODULE, str(script))
        assert spec is not None
        assert spec.loader is not None
        holder = importlib.util.module_from_spec(spec)
        sys.modules[CHILD_MAIN_MODULE] = holder
        spec.loader.exec_module(holder)
        sys.modules["__main__"] = holder  # The script's own code may look names up there.
    return cast("Handler", reduce(getattr, name.split("."), cast("object", holder)))
