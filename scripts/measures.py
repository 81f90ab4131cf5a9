"""Measure how readable the code and the pages are; end with status 1 if a measure exceeds a bound.

    python scripts/measures.py                   the figures, and every place that breaks a bound
    python scripts/measures.py --each            the pronoun share of every file, worst first
    python scripts/measures.py --sentences 50    sentences taken at random, to be read aloud

A place may break a bound with a written reason: a comment ``# long: …``, ``# parameters: …`` or ``# name: …`` on the
first line of a function (or any line of its signature) or on a constant's line, and ``# long: …`` on a line of its own
among the first forty lines of a file. The script counts the places with a reason and, with ``--each``, lists them.
"""

import argparse
import ast
import random
import re
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

CHECKOUT_ROOT = Path(__file__).resolve().parents[1]

CODE_FOLDERS = ("smoothcluster", "backends", "benchmarks", "examples", "scripts")

PRONOUN_PATTERN = re.compile(r"\b(it|its|that|what|one|ones|who|whom|whose|whoever)\b", re.IGNORECASE)

MOST_PARAMETERS = 6
MOST_FUNCTION_LINES = 30
MOST_FILE_LINES = 300
MOST_PRONOUNS_PER_100_WORDS = 3.5

EXEMPT_FILES = {"smoothcluster/backend.py"}
"""Files without a limit on length."""


@dataclass
class Measures:
    """The findings of a kind, as ``path:line what``, divided into places without and with a reason."""

    broken: list[str] = field(default_factory=list[str])
    excused: list[str] = field(default_factory=list[str])

    def note(self, place: str, *, reason: bool) -> None:
        """Add a place outside the bound."""
        (self.excused if reason else self.broken).append(place)


def python_files(*folders: str) -> Iterator[Path]:
    """Yield every Python file under *folders* of the checkout."""
    for folder in folders:
        yield from sorted(path for path in (CHECKOUT_ROOT / folder).rglob("*.py") if not _is_hidden(path))


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") or part in {"build", "dist"} for part in path.relative_to(CHECKOUT_ROOT).parts)


def _comments(path: Path) -> dict[int, str]:
    with path.open("rb") as file:
        tokens = tokenize.tokenize(file.readline)
        return {token.start[0]: token.string for token in tokens if token.type == tokenize.COMMENT}


@dataclass(frozen=True)
class Source:
    """A Python file: path from the checkout's root, lines, syntax tree and comments."""

    name: str
    lines: int
    tree: ast.Module
    comments: dict[int, str]

    @classmethod
    def read(cls, path: Path) -> "Source":
        """Read the file at *path*."""
        text = path.read_text(encoding="utf-8")
        return cls(str(path.relative_to(CHECKOUT_ROOT)), text.count("\n"), ast.parse(text), _comments(path))

    def has_reason(self, kind: str, first: int, last: int) -> bool:
        """Return whether a comment in these lines gives a reason of this kind."""
        return any(f"# {kind}: " in self.comments.get(line, "") for line in range(first, last + 1))

    def functions(self) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
        """Yield every function and method, nested functions included."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield node


def measure_files(sources: list[Source]) -> Measures:
    """Find files over the limit of lines."""
    found = Measures()
    for source in sources:
        if source.lines > MOST_FILE_LINES and source.name not in EXEMPT_FILES:
            found.note(f"{source.name} {source.lines} lines", reason=source.has_reason("long", 1, 40))
    return found


def measure_functions(sources: list[Source]) -> Measures:
    """Find functions over the limit of lines, counted from ``def`` to the last line without the docstring."""
    found = Measures()
    for source in sources:
        for node in source.functions():
            assert node.end_lineno is not None
            lines = node.end_lineno - node.lineno + 1 - _docstring_lines(node)
            if lines > MOST_FUNCTION_LINES:
                place = f"{source.name}:{node.lineno} {node.name}: {lines} lines"
                found.note(place, reason=source.has_reason("long", node.lineno, node.body[0].lineno))
    return found


def _docstring_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    first = node.body[0]
    if ast.get_docstring(node) is None:
        return 0
    assert first.end_lineno is not None
    return first.end_lineno - first.lineno + 1


def measure_parameters(sources: list[Source]) -> Measures:
    """Find functions with too many parameters, ``self`` and ``cls`` left out."""
    found = Measures()
    for source in sources:
        for node in source.functions():
            arguments = node.args
            names = [each.arg for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
            count = len([name for name in names if name not in {"self", "cls"}])
            count += (arguments.vararg is not None) + (arguments.kwarg is not None)
            if count > MOST_PARAMETERS:
                place = f"{source.name}:{node.lineno} {node.name}: {count} parameters"
                found.note(place, reason=source.has_reason("parameters", node.lineno, node.body[0].lineno))
    return found


def measure_constants(sources: list[Source]) -> Measures:
    """Find constants of a module or class named by a single word."""
    found = Measures()
    for source in sources:
        classes = [node for node in ast.walk(source.tree) if isinstance(node, ast.ClassDef)]
        scopes: list[ast.Module | ast.ClassDef] = [source.tree, *classes]
        for scope in scopes:
            if isinstance(scope, ast.ClassDef) and any("Enum" in ast.unparse(base) for base in scope.bases):
                continue
            for node in scope.body:
                for name in _assigned(node):
                    if re.fullmatch(r"_?[A-Z][A-Z0-9]+", name):
                        place = f"{source.name}:{node.lineno} {name}"
                        assert node.end_lineno is not None
                        found.note(place, reason=source.has_reason("name", node.lineno, node.end_lineno))
    return found


def _assigned(node: ast.stmt) -> list[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    flat = [each for target in targets for each in (target.elts if isinstance(target, ast.Tuple) else [target])]
    return [each.id for each in flat if isinstance(each, ast.Name)]


def docstrings(source: Source) -> str:
    """Return all docstrings of a file, including strings below constants and attributes."""
    texts = [
        statement.value.value
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        for statement in node.body
        if isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    ]
    return "\n\n".join(map(without_code, texts))


def without_code(text: str) -> str:
    """Return prose alone: no fenced or indented blocks, no code in backticks or asterisks, no addresses of links."""
    text = re.sub(r"^(```|:::)\{?.*?^(```|:::)$", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"``.*?``|`[^`]*`", " ", text, flags=re.DOTALL)
    text = re.sub(r"\]\([^)]*\)|<!--.*?-->|https?://\S+", " ", text, flags=re.DOTALL)
    return re.sub(r"(?<!\*)\*\w+\*(?!\*)", " ", text)


def pages() -> list[Path]:
    """Return every page of prose shown by the project."""
    found = [path for path in CHECKOUT_ROOT.rglob("*.md") if not _is_hidden(path)]
    return sorted(found)


def pronoun_counts(text: str) -> tuple[int, int]:
    """Count the pronouns and the words of *text*."""
    return len(PRONOUN_PATTERN.findall(text)), len(re.findall(r"[A-Za-z][A-Za-z'-]*", text))


def share(counts: list[tuple[int, int]]) -> float:
    """Return the pronouns per 100 words over several texts."""
    return 100 * sum(pronouns for pronouns, _ in counts) / max(1, sum(words for _, words in counts))


def sentences(text: str) -> list[str]:
    """Return the sentences of a page or docstring, without sentences too short to judge."""
    flat = re.sub(r"^[#>|*-].*$", "", text, flags=re.MULTILINE)
    found = [" ".join(each.split()) for each in re.split(r"(?<=[.:!?])\s+|\n\n", flat)]
    return [each for each in found if len(each.split()) > 4]


def _show(title: str, found: Measures, *, each: bool) -> bool:
    print(f"{title}: {len(found.broken)} without a reason, {len(found.excused)} with one")
    for place in found.broken:
        print(f"    {place}")
    for place in found.excused if each else []:
        print(f"    (reason given) {place}")
    return not found.broken


def _show_pronouns(title: str, texts: dict[str, str], *, each: bool) -> bool:
    counts = {name: pronoun_counts(text) for name, text in texts.items()}
    total = share(list(counts.values()))
    print(f"pronouns per 100 words of {title}: {total:.2f} (at most {MOST_PRONOUNS_PER_100_WORDS})")
    for name, count in sorted(counts.items(), key=lambda item: -share([item[1]])) if each else []:
        print(f"    {share([count]):5.2f} {count[0]:4} of {count[1]:5} {name}")
    return total <= MOST_PRONOUNS_PER_100_WORDS


def main() -> int:
    """Print everything and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--each", action="store_true", help="list every file's pronoun share and every reason")
    parser.add_argument(
        "--sentences", type=int, metavar="N", help="print N sentences taken at random, and nothing else"
    )
    options = parser.parse_args()
    sources = [Source.read(path) for path in python_files(*CODE_FOLDERS)]
    documentation = {
        str(path.relative_to(CHECKOUT_ROOT)): without_code(path.read_text(encoding="utf-8")) for path in pages()
    }
    described = {source.name: docstrings(source) for source in sources}
    if options.sentences:
        everything = [each for text in (*documentation.values(), *described.values()) for each in sentences(text)]
        print("\n".join(random.sample(everything, options.sentences)))
        return 0
    kept = [
        _show(f"files over {MOST_FILE_LINES} lines", measure_files(sources), each=options.each),
        _show(f"functions over {MOST_FUNCTION_LINES} lines", measure_functions(sources), each=options.each),
        _show(f"functions with more than {MOST_PARAMETERS} parameters", measure_parameters(sources), each=options.each),
        _show("constants of one word", measure_constants(sources), each=options.each),
        _show_pronouns("docs", documentation, each=options.each),
        _show_pronouns("docstrings", described, each=options.each),
    ]
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main())
