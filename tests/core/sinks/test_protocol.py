"""Results sinks without their libraries: tails, blocks, options, and what is said if a library is missing."""

import json
import sys
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from smoothcluster.errors import GarbageError, MissingDriverError, UsageError
from smoothcluster.model import Outcome, State
from smoothcluster.sinks import NumberedOutcome, Part, Tail, open_sink, opening
from smoothcluster.sinks.blocks import decode_block, encode_block, from_line, to_line
from smoothcluster.sinks.options import secrets_of, sink_options, unavailable

PART = Part("j", 3)
TAIL = Tail(5, 9, 1, "5-5.aa.jsonl", 7, "00ff")


def outcome(seq: int) -> NumberedOutcome:
    """One of a commit."""
    return NumberedOutcome(seq, Outcome(f"t{seq}", State.DONE, {"n": [seq]}, None, 1, "m", 2))


@pytest.mark.parametrize("tail", [TAIL, Tail(0, 0), Tail(2**63 - 1, 2**63 - 1)])
def test_a_tail_comes_back_from_the_store(tail: Tail) -> None:
    """All of it."""
    assert Tail.from_json(tail.to_json()) == tail
    assert Tail.from_json(tail.to_json().encode()) == tail


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", "1", "[" * 100_000, b"\xff"]
    + [
        json.dumps(json.loads(TAIL.to_json()) | {name: value})
        for name, value in [
            ("last", -1),
            ("last", 2**63),
            ("last", True),
            ("outcomes", 1.0),
            ("name", None),
            ("name", "../x"),
            ("digest", "a\nb"),
        ]
    ],
)
def test_garbage_is_no_tail(text: str | bytes) -> None:
    """Whatever lies in the store in its place."""
    with pytest.raises(GarbageError):
        Tail.from_json(text)


def changed(content: bytes, tail: Tail, **header: object) -> tuple[Tail, bytes]:
    """The block with another header, and the tail that names it."""
    from hashlib import sha256

    first, rest = content.split(b"\n", 1)
    content = json.dumps(json.loads(first) | header).encode() + b"\n" + rest
    return replace(tail, length=len(content), digest=sha256(content).hexdigest()), content


def test_a_block_comes_back() -> None:
    """With the name of its predecessor."""
    first, content = encode_block(PART, [outcome(1), outcome(2)], None)
    assert decode_block(PART, first, content).previous is None
    second, content = encode_block(PART, [outcome(3)], first)
    block = decode_block(PART, second, content)
    assert (block.previous, [*block.outcomes]) == (first, [outcome(3)])
    assert second.outcomes == 3


@pytest.mark.parametrize(
    "header",
    [
        {"format": 2},
        {"job": "k"},
        {"shard": 4},
        {"last": 4},
        {"outcomes": 2},
        {"previous": {}},
        {"previous": 7},
        {"previous": json.loads(replace(TAIL, last=3).to_json())},
    ],
    ids=str,
)
def test_a_block_with_a_wrong_header_is_garbage(header: dict[str, Any]) -> None:
    """Even if its digest is right: another version wrote it, or it lies in another part, or leads in a circle."""
    tail, content = encode_block(PART, [outcome(3)], None)
    tail, content = changed(content, tail, **header)
    with pytest.raises(GarbageError, match=tail.name):
        decode_block(PART, tail, content)


@pytest.mark.parametrize("line", ["", "{}", "[]", "7", '{"seq": 1, "state": "none"}', "[" * 100_000])
def test_garbage_is_no_outcome(line: str) -> None:
    """A row or a line that somebody else wrote."""
    with pytest.raises(GarbageError):
        from_line(line)
    assert from_line(to_line(outcome(3))) == outcome(3)


def test_options_of_the_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """None, JSON, or a file with JSON."""
    name = "SMOOTHCLUSTER_RESULTS_OPTIONS"
    monkeypatch.delenv(name, raising=False)
    assert sink_options() == {}
    monkeypatch.setenv(name, '{"key": "k"}')
    assert sink_options() == {"key": "k"}
    (tmp_path / "options").write_text('{"key": "l"}')
    monkeypatch.setenv(name, str(tmp_path / "options"))
    assert sink_options() == {"key": "l"}


@pytest.mark.parametrize("content", ["secret-word", '{"secret-word', '["secret-word"]', "secret\0word", "x" * 9999])
def test_wrong_options_are_not_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str) -> None:
    """Neither those in the variable nor those in the file: each may be a password."""
    (tmp_path / "options").write_text(content)
    for value in (content.replace("\0", "-"), str(tmp_path / "options")):
        monkeypatch.setenv("SMOOTHCLUSTER_RESULTS_OPTIONS", value)
        with pytest.raises(UsageError, match="SMOOTHCLUSTER_RESULTS_OPTIONS") as caught:
            sink_options()
        assert "secret" not in str(caught.value)


def test_no_secret_in_an_error() -> None:
    """Of all options, at any depth, the longest first; and only the first line, which shows no rows."""
    secrets = secrets_of({"key": "word", "more": {"password": ["wordy-word"]}, "number": 7, "short": "no"})
    assert secrets == {"word", "wordy-word"}
    error = unavailable("s3://b", "write to", OSError("no: wordy-word, word\nrow"), secrets)
    assert str(error) == "cannot write to s3://b: OSError: no: ***, ***"


@pytest.mark.parametrize(
    ("url", "library", "extra"),
    [
        ("file:///data/out", "fsspec", "files"),
        ("s3://bucket/x", "fsspec", "files"),
        ("sqlite:///items.db", "sqlalchemy", "sql"),
        ("postgresql+psycopg://h/items", "sqlalchemy", "sql"),
    ],
)
def test_a_missing_library_is_told(monkeypatch: pytest.MonkeyPatch, url: str, library: str, extra: str) -> None:
    """With the extra to install."""
    monkeypatch.setitem(sys.modules, library, None)
    for module in ("files", "sql", "tables"):
        monkeypatch.delitem(sys.modules, f"smoothcluster.sinks.{module}", raising=False)
    with pytest.raises(MissingDriverError, match=rf"pip install 'smoothcluster\[{extra}\]'"):
        open_sink(url, {})


class OwnSink:
    """What a package registers."""

    @classmethod
    def from_url(cls, url: str, **options: object) -> tuple[str, object]:
        """Show what came."""
        return url, options


def test_a_sink_of_another_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is found by the scheme of its entry point."""

    def points(group: str, name: str) -> list[EntryPoint]:
        own = EntryPoint(name, f"{__name__}:OwnSink", group)
        return [own] if (group, name) == ("smoothcluster.sinks", "own") else []

    monkeypatch.setattr(opening, "entry_points", points)
    monkeypatch.setitem(sys.modules, __name__, sys.modules[OwnSink.__module__])
    assert open_sink("OWN://Place", {"a": 1}) == ("own://Place", {"a": 1})  # type: ignore[comparison-overlap]


@pytest.mark.parametrize("url", ["secret-word", "/data/out", "", "a b://x", 7, None])
def test_what_is_no_url(url: Any) -> None:
    """Is told, and not shown."""
    with pytest.raises(UsageError, match=r"URL of a results sink|needs a URL") as caught:
        open_sink(url, {})
    assert "secret" not in str(caught.value)
