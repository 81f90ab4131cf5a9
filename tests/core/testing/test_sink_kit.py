"""The conformance kit of results sinks: a sink that keeps the rules passes, and each broken one fails a rule."""

import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from dict_sink import PLACE, DictSink, register

from smoothcluster.errors import GarbageError
from smoothcluster.sinks import NumberedOutcome, Part, ResultSink, Tail, open_sink
from smoothcluster.sinks.blocks import decode_block, encode_block
from smoothcluster.testing import SinkConformance


class OneName(DictSink):
    """A block's name has no random part, so a late write changes a block that counts."""

    def put(self, part: Part, tail: Tail, content: bytes) -> Tail:
        return super().put(part, replace(tail, name=tail.name.partition(".")[0]), content)


class ReadsAll(DictSink):
    """Reads every block that lies there, whether a tail names it or not."""

    def read(self, part: Part, tail: Tail) -> Iterator[NumberedOutcome]:
        for (each, _), content in PLACE.items():
            if each == part:
                length = replace(tail, length=len(content))
                yield from decode_block(part, replace(length, **_named(content)), content).outcomes


class LastOnly(DictSink):
    """Forgets the predecessor."""

    def read(self, part: Part, tail: Tail) -> Iterator[NumberedOutcome]:
        yield from self.block(part, tail).outcomes


class Believes(DictSink):
    """Takes a part that lost its end for the whole."""

    def read(self, part: Part, tail: Tail) -> Iterator[NumberedOutcome]:
        try:
            yield from super().read(part, tail)
        except GarbageError:
            return


class KeepsDeleted(DictSink):
    """Deletes nothing."""

    def delete(self, part: Part) -> None:
        pass


class DeletesJob(DictSink):
    """Deletes the other shards of the job, too."""

    def delete(self, part: Part) -> None:
        for key in [key for key in PLACE if key[0].job.startswith(part.job[:-1])]:
            del PLACE[key]


class OwnMarks(DictSink):
    """Marks are seen by the client alone that left them."""

    def mark(self, name: str) -> None:
        self.own = name

    def has_mark(self, name: str) -> bool:
        return name == getattr(self, "own", None)


class Obeys(DictSink):
    """Takes any batch."""

    def write(self, part: Part, batch: Sequence[NumberedOutcome], after: Tail | None) -> Tail:
        if not batch:
            return after or Tail(0, 0)
        return super().write(part, sorted(batch, key=lambda each: each.seq), None)


class DropsNul(DictSink):
    """Writes texts as a database does that has no NUL."""

    def put(self, part: Part, tail: Tail, content: bytes) -> Tail:
        tail, content = encode_block(
            part, [*decode_block(part, tail, content.replace(b"\\u0000", b"?????n")).outcomes], None
        )
        return super().put(part, tail, content)


def _named(content: bytes) -> dict[str, Any]:
    import json
    from hashlib import sha256

    header = json.loads(content.split(b"\n", 1)[0])
    return {"last": header["last"], "digest": sha256(content).hexdigest()}


class TestKept(SinkConformance):
    """The rules are kept."""

    @property
    def url(self) -> str:
        return "dict://place"

    def open(self) -> ResultSink:
        return DictSink()

    @pytest.fixture(autouse=True)
    def _registered(self, monkeypatch: pytest.MonkeyPatch) -> None:
        register(monkeypatch, DictSink)


Rule = Callable[[SinkConformance, ResultSink, ResultSink, Part], None]
RULES: dict[str, Rule] = {
    "late": lambda kit, sink, other, part: kit.test_a_late_write_of_a_replaced_owner_changes_nothing(
        sink, other, part, 2
    ),
    "twice": lambda kit, sink, other, part: kit.test_a_block_may_be_written_twice(sink, other, part),
    "successor": lambda kit, sink, other, part: kit.test_a_successor_may_write_more(sink, other, part),
    "unseen": lambda kit, sink, other, part: kit.test_a_write_without_a_commit_is_not_seen(sink, part),
    "batches": lambda kit, sink, other, part: kit.test_batches_are_read_up_to_the_tail(sink, other, part),
    "lies": lambda kit, sink, other, part: kit.test_a_tail_of_more_than_there_is(sink, part),
    "deleted": lambda kit, sink, other, part: kit.test_a_deleted_part_stays_deleted(sink, other, part),
    "apart": lambda kit, sink, other, part: kit.test_parts_are_apart(sink, part),
    "marks": lambda kit, sink, other, part: kit.test_a_mark_is_found_by_others(sink, other),
    "batch": lambda kit, sink, other, part: kit.test_a_batch_that_makes_no_sense_is_refused(sink, part, ()),
    "written": lambda kit, sink, other, part: kit.test_every_outcome_is_read_as_written(sink, other, part),
    "rollback": lambda kit, sink, other, part: kit.test_after_a_rollback_of_the_store_no_outcome_is_missing(sink, part),
}


@pytest.mark.parametrize(
    ("kind", "rules"),
    [
        (OneName, {"rollback"}),
        (ReadsAll, {"twice", "unseen", "batches", "successor"}),
        (LastOnly, {"batches"}),
        (Believes, {"lies", "deleted"}),
        (KeepsDeleted, {"deleted"}),
        (DeletesJob, {"apart"}),
        (OwnMarks, {"marks"}),
        (Obeys, {"batch"}),
        (DropsNul, {"written"}),
        (DictSink, set[str]()),
    ],
)
def test_each_broken_sink_breaks_a_rule(kind: type[DictSink], rules: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The rules that are named, at least; and a sink that is not broken breaks none."""
    register(monkeypatch, kind)
    broken: set[str] = set()
    for name, rule in RULES.items():
        sink, other = open_sink("dict://place"), open_sink("dict://place")
        try:
            rule(TestKept(), sink, other, Part(f"j{secrets.token_hex(4)}", 7))
        except (AssertionError, GarbageError, pytest.fail.Exception):
            broken.add(name)
    assert rules <= broken
    assert bool(rules) == bool(broken)
