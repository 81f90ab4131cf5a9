"""References to handlers, so that a child process can import the same handler.

A child is a fresh interpreter and shares nothing with the parent but imports. So a child must find
the handler by name, as ``module:function``. For a handler of the started script the child imports
the file under another name, and this runs the top level of the file. So the script must keep the
work behind ``if __name__ == "__main__":``; any other script is refused.
"""

import ast
import importlib
import importlib.util
import os
import sys
from dataclasses import asdict, dataclass
from functools import reduce
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
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

    def search_path(self) -> list[str]:
        """Return the module path for a child.

        A relative entry of ``sys.path`` means another folder once the process has changed its folder. So the folder
        from which the handler's module came goes before the first relative entry. Entries that Python's own import
        skips, such as `pathlib.Path` objects, are left out.
        """
        entries = [each for each in sys.path if _is_path(each)]
        first = next((index for index, each in enumerate(entries) if not os.path.isabs(each)), None)  # noqa: PTH117  # text
        root = self._root()
        if first is not None and root is not None:
            entries.insert(first, root)
        return entries

    def _root(self) -> str | None:
        """The folder that must be on the path for an import of the module; None if unknown."""
        file = self.script or getattr(sys.modules.get(self.module), "__file__", None)
        if file is None or not Path(file).is_absolute():
            return None
        steps = self.module.count(".") + (Path(file).stem == "__init__")
        parents = Path(file).parents
        return str(parents[steps]) if steps < len(parents) else None


def _is_path(entry: object) -> bool:
    try:
        return isinstance(entry, str) and b"\0" not in os.fsencode(entry)
    except ValueError:  # Text with lone surrogates names no file.
        return False


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
    if module not in ("__main__", CHILD_MAIN_MODULE):
        return Origin(module, name, None)
    script = _guarded(getattr(holder, "__file__", None))
    # So that this process can unpickle objects that a child has pickled. `multiprocessing` makes the same entry.
    sys.modules.setdefault(CHILD_MAIN_MODULE, cast("ModuleType", holder))
    started = str(getattr(getattr(holder, "__spec__", None), "name", "__main__"))
    # python -m package.module has a spec with this name.
    return Origin(CHILD_MAIN_MODULE if started == "__main__" else started, name, script)


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
    holder = importlib.import_module(module) if script is None else _run_script(module, str(script))
    return cast("Handler", reduce(getattr, name.split("."), cast("object", holder)))


def _run_script(module: str, script: str) -> ModuleType:
    """Import the program's script as `multiprocessing` does, under a name which its main guard does not know."""
    loader = SourceFileLoader(module, script)  # Also for a script whose name has no suffix.
    spec = importlib.util.spec_from_file_location(module, script, loader=loader)
    assert spec is not None
    holder = importlib.util.module_from_spec(spec)
    holder.__name__ = CHILD_MAIN_MODULE
    if module == CHILD_MAIN_MODULE:
        holder.__spec__ = None  # As in a started script: a program that the handler starts would look for the name.
    # Before the script runs: an import of `multiprocessing` in the script makes the second entry refer to the first,
    # and pickle finds the script's functions and classes there.
    sys.modules["__main__"] = sys.modules[CHILD_MAIN_MODULE] = holder
    code = loader.get_code(module)
    assert code is not None
    exec(code, vars(holder))  # noqa: S102 - the user's own script
    return holder
