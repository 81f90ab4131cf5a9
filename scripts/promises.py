"""Write the tests of each promise into docs/explanation/promises.md.

    python scripts/promises.py

A test proves a promise if a marker says so: ``@pytest.mark.promise(3)``, or ``promise(2, 3)`` for several promises.
The script reads the markers from the source: it imports no test, so it needs no driver of a store.
"""

import ast
import re
import runpy
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import NamedTuple

CHECKOUT_ROOT = Path(__file__).resolve().parents[1]
PROMISES_PAGE = CHECKOUT_ROOT / "docs" / "explanation" / "promises.md"
PLANTED_BUGS = CHECKOUT_ROOT / "tests" / "core" / "planted_bugs.py"

TESTS_BEGIN = "<!-- The tests of each promise: written by scripts/promises.py -->\n"
TESTS_END = "<!-- The end of the tests -->\n"


class Kind(StrEnum):
    """The kind of a test, as on the page."""

    SIMULATOR = "Simulator"
    PROCESSES = "Real processes"
    PARTS = "Single parts"


KIND_BY_PATH = {
    "tests/core/testing/test_simulate.py": Kind.SIMULATOR,
    "tests/cluster/": Kind.PROCESSES,
    "tests/strangers/": Kind.PROCESSES,
    "tests/": Kind.PARTS,
}
"""The kind of each test, by the beginning of the path; the first match counts."""

PROMISE_HEADING = re.compile(r"^## (P(\d+) .*)$", re.MULTILINE)


class Proof(NamedTuple):
    """A test that proves a promise."""

    file: str
    test: str
    promise: int
    bugs: int = 0
    """The number of planted bugs that break the promise, for a test with planted bugs as parameters."""

    @property
    def kind(self) -> Kind:
        """The kind of the test."""
        return next(kind for path, kind in KIND_BY_PATH.items() if self.file.startswith(path))


def promises() -> dict[int, str]:
    """The headings of the promises on the page, by number."""
    return {
        int(number): heading for heading, number in PROMISE_HEADING.findall(PROMISES_PAGE.read_text(encoding="utf-8"))
    }


@cache
def proofs() -> Sequence[Proof]:
    """All proofs, in the order of files and lines. Raise ValueError for a marker that names no promise."""
    found = [proof for file in sorted((CHECKOUT_ROOT / "tests").rglob("test_*.py")) for proof in _proofs_in(file)]
    unknown = [proof for proof in found if proof.promise not in promises()]
    if unknown:
        raise ValueError(f"{PROMISES_PAGE.name} has no promise of these numbers: {unknown}")
    return found


def _proofs_in(file: Path) -> Iterator[Proof]:
    name = file.relative_to(CHECKOUT_ROOT).as_posix()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            for decorator in node.decorator_list:
                for number, bugs in _numbers(decorator, f"{name}, line {node.lineno}").items():
                    yield Proof(name, node.name, number, bugs)


def _numbers(decorator: ast.expr, where: str) -> Mapping[int, int]:
    """The promises that a decorator names, each with the number of planted bugs."""
    if not isinstance(decorator, ast.Call):
        return {}
    called = ast.unparse(decorator.func)
    if called == "pytest.mark.promise":
        if not decorator.args or not all(isinstance(each, ast.Constant) for each in decorator.args):
            raise ValueError(f"{where}: write the numbers of the promises as literals")
        return {int(ast.literal_eval(each)): 0 for each in decorator.args}
    if called == "pytest.mark.parametrize":
        planted = re.fullmatch(r"hunted\((\w+)\)", ast.unparse(decorator.args[1]))
        return _planted(planted[1]) if planted else {}
    return {}


def _planted(name: str) -> Mapping[int, int]:
    """The number of planted bugs for each promise, in the tuple *name* of `PLANTED_BUGS`."""
    count = defaultdict[int, int](int)
    for bug in runpy.run_path(str(PLANTED_BUGS))[name]:
        for number in bug.promises:
            count[number] += 1
    return count


def text_of(found: Sequence[Proof]) -> str:
    """The text between `TESTS_BEGIN` and `TESTS_END`: a table of counts, and a list for each promise."""
    lines = [f"| | {' | '.join(Kind)} |", "|---|---|---|---|"]
    lists: list[str] = []
    for number, heading in promises().items():
        of_kind = {kind: [each for each in found if (each.promise, each.kind) == (number, kind)] for kind in Kind}
        counts = " | ".join(_count(of_kind[kind]) for kind in Kind)
        lines.append(f"| [P{number}](#{_anchor(heading)}) | {counts} |")
        lists += ["", f"**{heading}**", ""]
        lists += [line for kind, each in of_kind.items() for line in _list(kind, each)]
    return "\n".join(["", *lines, *lists, "", ""])


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-")


def _count(found: Sequence[Proof]) -> str:
    tests, bugs = sum(not each.bugs for each in found), sum(each.bugs for each in found)
    parts = [_plural(tests, "test")] if tests or not bugs else []
    return ", ".join([*parts, *([_plural(bugs, "planted bug")] if bugs else [])])


def _plural(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _list(kind: Kind, found: Iterable[Proof]) -> list[str]:
    """The tests of a kind, a line for each file."""
    files = defaultdict[str, list[str]](list)
    for each in found:
        files[each.file].append(f"`{each.test}`" + (f" ({_plural(each.bugs, 'bug')})" if each.bugs else ""))
    lines = [f"[{Path(file).name}](../../{file}): {', '.join(tests)}" for file, tests in files.items()]
    return [f"- {kind}", *(f"  - {line}" for line in lines)] if lines else []


def updated(page: str, found: Sequence[Proof]) -> str:
    """The text of the page, with the tests in *found*."""
    before, begin, rest = page.partition(TESTS_BEGIN)
    _, end, after = rest.partition(TESTS_END)
    if not (begin and end):
        raise ValueError(f"{PROMISES_PAGE.name} lacks the comments {TESTS_BEGIN.strip()} and {TESTS_END.strip()}")
    return before + begin + text_of(found) + end + after


if __name__ == "__main__":
    PROMISES_PAGE.write_text(updated(PROMISES_PAGE.read_text(encoding="utf-8"), proofs()), encoding="utf-8")
