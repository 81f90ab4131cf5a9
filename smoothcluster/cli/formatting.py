"""Format values as lines and tables for people."""

from collections.abc import Iterable, Iterator, Mapping, Sequence


def plain(value: object) -> str:
    """Return *value* as text for a terminal, of the same length.

    Characters that could move the cursor, break the line, or turn the order of letters are replaced: all controls (with
    the escapes of terminals), line and paragraph separators, marks of direction, and other invisible characters.
    """
    text = str(value)
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def one_line(text: str) -> str:
    """Return *text* as a single line for a terminal: a space for each line break, and otherwise as `plain` does."""
    return plain(" ".join(text.splitlines()))


def cell(value: object) -> str:
    """Return *value* as text for a table's cell."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else plain(value)


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    """Yield the lines of a table. Each column is as wide as the widest cell."""
    lines = [head, *([cell(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        yield "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()


def size(count: float) -> str:
    """Write a number of bytes: ``1.5 GiB``."""
    unit = "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if count < 1024:
            break
        count, unit = count / 1024, larger
    return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"


def ranges(numbers: Iterable[int]) -> str:
    """Write rising numbers, with neighbours joined to ranges: ``0-2, 7``."""
    found: list[list[int]] = []
    for number in numbers:
        if found and found[-1][1] == number - 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in found)


def shape(spec: Mapping[str, int | None]) -> str:
    """Write a group's numbers: ``3 Runners, 2 Backup Runners, 32 shards``."""
    runner, backup, shards = (spec[name] for name in ("runner", "backup", "shards"))
    divided = f"{shards} shard{'s' * (shards != 1)}"
    if runner is None:
        return f"no member has joined yet, {divided}"
    runners = f"{runner} Runner{'s' * (runner != 1)}"
    if backup is None:
        return f"all are Runners, {runners}, {divided}"
    return f"{runners}, {backup} Backup Runner{'s' * (backup != 1)}, {divided}"
