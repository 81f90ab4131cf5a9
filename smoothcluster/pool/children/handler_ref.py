"""Where a handler comes from, so that a child process can import the very same one.

A child is a fresh interpreter: it knows nothing of its parent but what it imports. So a handler
must be found by name, as ``module:function``. One of the script that was started is found by
importing that file under another name, which runs its top level: only a script whose work waits
behind ``if __name__ == "__main__":`` may be imported so, and only such a one is.
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

MAIN = "__mp_main__"
"""The name under which a child imports the script, as `multiprocessing` does."""


@dataclass(frozen=True, slots=True)
class Origin:
    """How a child finds the handler."""

    module: str
    name: str
    script: str | None
    """The file to be imported as the module, if that is the program's ``__main__``."""

    def to_json(self) -> dict[str, object]:
        """For a child's eyes."""
        return asdict(self)


class NoOriginError(Exception):
    """The handler cannot be imported by a child; says why, and how to mend it."""


def origin_of(handler: Handler) -> Origin:
    """Where *handler* comes from; raise NoOriginError if a child could not find it there."""
    module, name = getattr(handler, "__module__", None), getattr(handler, "__qualname__", None)
    if not (isinstance(module, str) and isinstance(name, str)):
        raise NoOriginError(f"it is an object ({handler!r:.80}): make it a function of a module")
    if "<" in name:
        raise NoOriginError(f"{name} is made inside a function: put it on the top level of its module")
    holder = sys.modules.get(module)
    found: object = reduce(lambda part, step: getattr(part, step, None), name.split("."), cast("object", holder))
    if found is not handler:
        raise NoOriginError(f"{module}:{name} is not it: a child finds functions and static methods, nothing bound")
    if module != "__main__":
        return Origin(module, name, None)
    spec = getattr(holder, "__spec__", None)
    if spec is not None and spec.name != "__main__":  # python -m package.module
        return Origin(spec.name.removesuffix(".__main__"), name, _guarded(getattr(holder, "__file__", None)))
    return Origin(MAIN, name, _guarded(getattr(holder, "__file__", None)))


def _guarded(file: str | None) -> str:
    """The script's file, if importing it does no more than define things."""
    if file is None or not Path(file).is_file():
        raise NoOriginError("it was typed in, not read from a file: put it into a module")
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
    raise NoOriginError(f'{path} has no `if __name__ == "__main__":`, so importing it would run all of it')


def load(data: dict[str, Any]) -> Handler:
    """In a child: the handler that its parent has described. Raises whatever importing it raises."""
    module, name, script = str(data["module"]), str(data["name"]), data["script"]
    if script is None:
        holder = importlib.import_module(module)
    else:
        spec = importlib.util.spec_from_file_location(MAIN, str(script))
        assert spec is not None
        assert spec.loader is not None
        holder = importlib.util.module_from_spec(spec)
        sys.modules[MAIN] = holder
        spec.loader.exec_module(holder)
        sys.modules["__main__"] = holder  # What the script's own code looks up there.
    return cast("Handler", reduce(getattr, name.split("."), cast("object", holder)))
