"""One filter stands before the terminal: whatever text of strangers a command writes is harmless there."""

import ast
import json
import logging
from pathlib import Path

import pytest
from cli_kit import HOSTILE, Invoke, harmful, one_line, started

import smoothcluster.cli
from smoothcluster.backend import Create, Update
from smoothcluster.cli import common, logs
from smoothcluster.cli.event_tail import Tail
from smoothcluster.cli.formatting import one_line as folded
from smoothcluster.cli.formatting import plain
from smoothcluster.cli.output import print_data, print_message
from smoothcluster.cli.progress_bar import shown
from smoothcluster.cli.run import handover
from smoothcluster.errors import UnavailableError
from smoothcluster.registry import connect


def test_what_is_harmless_stays() -> None:
    """Letters of any script, signs and pictures; and the width of the text."""
    text = "a é ß 漢字 עברית عربى 🙂 - ½ «»"
    assert plain(text) == folded(text) == text
    assert len(plain(HOSTILE)) == len(HOSTILE)
    assert folded("one\r\ntwo\n\nthree\u2028four\x85") == "one two  three four"


def test_every_character_of_the_harmful_kinds_is_replaced() -> None:
    """Not those alone that somebody has thought of."""
    ranges = (
        range(0x3000),
        range(0xD700, 0xE100),
        range(0xFB00, 0x1_1000),
        range(0x1_BC00, 0x1_D200),
        range(0xE_0000, 0xE_0200),
    )
    everything = "".join(chr(number) for each in ranges for number in each)
    assert harmful(plain(everything) + folded(everything)) == []
    assert "\n" not in plain(everything)
    assert "\t" not in plain(everything)


def test_records_of_the_log_are_a_line_each(capfd: pytest.CaptureFixture[str]) -> None:
    """What was logged can neither act on the terminal nor pass for another record."""
    with logs.logging_to_stderr():
        logs.log.warning("garbage at %s: %s", HOSTILE, HOSTILE)
        logging.getLogger("smoothcluster.x").warning("first\nsecond")
    told = capfd.readouterr().err
    assert harmful(told) == []
    assert len(told.splitlines()) == 2
    assert told.endswith("WARNING first second\n")


def test_the_lines_of_a_trace_are_no_records(capfd: pytest.CaptureFixture[str]) -> None:
    """An exception may hold a page of the web: its lines are told apart from records by their margin."""
    with logs.logging_to_stderr():
        try:
            raise ValueError(HOSTILE) from KeyError(HOSTILE)
        except ValueError as error:
            logs.log.warning("task failed", exc_info=error, stack_info=True)
        logs.log.warning("next")
    told = capfd.readouterr().err
    assert harmful(told) == []
    first, *trace, last = told.splitlines()
    assert first.endswith("WARNING task failed")
    assert last.endswith("WARNING next")
    assert all(line.startswith("  | ") for line in trace)
    assert "  |     raise ValueError(HOSTILE) from KeyError(HOSTILE)" in trace


def test_a_secret_is_hidden_before_it_is_filtered(capfd: pytest.CaptureFixture[str]) -> None:
    """Else a password with an odd character would be no more recognised."""
    secret = "open\x1bsesame"
    logs.hide_word(secret)
    with logs.logging_to_stderr():
        logs.log.warning("%s", secret)
        logs.log.warning("failed", exc_info=ValueError(secret))
    print_message(secret)
    told = capfd.readouterr().err
    assert "open" not in told
    assert told.count("***") == 3


@pytest.mark.parametrize("error", [UnavailableError(HOSTILE), RuntimeError(HOSTILE), OSError(5, HOSTILE)])
def test_an_error_is_a_harmless_line(invoke: Invoke, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Servers say what they like; the trace of --verbose is no worse."""

    def refuse(url: str | None) -> None:
        raise error

    monkeypatch.setattr(common, "connect", refuse)
    assert harmful(one_line(invoke("status"), invoke("status").exit_code)) == []
    assert harmful(invoke("status", "--verbose").stderr) == []


def test_news_of_a_member_are_harmless(capfd: pytest.CaptureFixture[str]) -> None:
    """They repeat what others have written into events, whatever these have for shards."""
    with logs.logging_to_stderr():
        found: tuple[object, ...] = ([1, 2, "x"], 5, None, {}, "1", [10**400])
        for shards in found:
            event = {"from": HOSTILE, "to": HOSTILE, "member": "m", "shards": shards, "evidence": HOSTILE}
            logs.log.info("%s", handover(event))
    told = capfd.readouterr().err
    assert harmful(told) == []
    assert len(told.splitlines()) == 6


def test_what_the_bar_lets_through_is_harmless(capfd: pytest.CaptureFixture[str]) -> None:
    """With a terminal or without."""
    with shown("x", None) as bar:
        bar.print_line(HOSTILE)
    print_data(HOSTILE)
    out, err = capfd.readouterr()
    assert harmful(out + err) == []
    assert (len(out.splitlines()), len(err.splitlines())) == (1, 1)


def test_a_terminal_of_few_letters_gets_them_written_out() -> None:
    """A text that the terminal's encoding lacks is no reason to stop at it."""
    code = """
        import sys
        sys.stdout.reconfigure(encoding="ascii", errors="strict")
        sys.stderr.reconfigure(encoding="ascii", errors="strict")
        from smoothcluster import Cluster, Task, connect
        from smoothcluster.backend import Create
        Cluster(connect("memory://")).submit([Task(id="a")], "j")
        text = '{"runner":"m","epoch":1,"outcomes":[["\\\\u6f22","failed",null,"\\\\u001b",1]]}'
        connect("memory://").commit([], [Create("default/results/j/0/0", text.encode())])
    """
    with started("results", "--format", "text", code=code) as (process, out, err):
        assert out.read() == "j\t\\u6f22\tfailed\t1\tm\t\\ufffd\n"
        assert err.read() == ""
        assert process.wait() == 0


def test_followed_events_go_on_after_a_number_that_is_none(url: str) -> None:
    """Else one record would hide all that its member writes later."""
    backend = connect(url)
    for number in (2**60, -5, float("inf"), 10**400):
        tail, key = Tail(backend, "g"), "g/events/a/0"
        odd = json.dumps({"n": number, "at": 1, "kind": "odd"}).encode()
        backend.commit([], [Create(key, odd) if backend.get(key) is None else Update(key, odd)])
        assert [event["kind"] for event in tail.new()] == ["odd"]
        backend.commit([], [Update(key, b'{"n":0,"at":2,"kind":"good"}')])
        assert [event["kind"] for event in tail.new()] == ["good"]
        assert tail.new() == []


def test_commands_write_through_the_filter_alone() -> None:
    """No command calls `print` or `click.echo` by itself."""
    folder = Path(str(smoothcluster.cli.__file__)).parent
    found = [
        f"{file.name}:{node.lineno}"
        for file in sorted(folder.rglob("*.py"))
        if file.name not in {"output.py", "logs.py", "completion.py"}  # The last writes a program for a shell.
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in {"print", "click.echo", "click.secho", "sys.stdout.write", "sys.stderr.write"}
    ]
    assert found == []
