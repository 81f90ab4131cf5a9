"""Rules of failing: places that are away or refuse a value, and writers that are killed."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from smoothcluster.errors import GarbageError, SinkUnavailableError
from smoothcluster.sinks import NumberedOutcome, Part, ResultSink
from smoothcluster.testing.sink_conformance.kit import SinkAbility, SinkKit, numbered, read_all

VICTIM_SECONDS = 120.0
"""Seconds that all killed writers together may take."""


class FailingRules(SinkKit):
    """Whatever fails, the next write or read finds the place whole."""

    def test_a_place_that_is_away_is_told(self, sink: ResultSink, other: ResultSink, part: Part) -> None:
        """Every call says so; and the same client goes on when the place is back."""
        self.need(SinkAbility.AWAY)
        begin = sink.write(part, numbered(1), None)
        sink.mark(part.job)
        self.take_away()
        try:
            for call in (
                lambda: sink.write(part, numbered(2), begin),
                lambda: list(sink.read(part, begin)),
                lambda: sink.delete(part),
                lambda: sink.mark(f"{part.job}-2"),
                lambda: sink.has_mark(part.job),
            ):
                with pytest.raises(SinkUnavailableError) as caught:
                    call()
                assert "task2" not in str(caught.value), "results may be private"
        finally:
            self.bring_back()
        tail = sink.write(part, numbered(2), begin)
        assert read_all(other, part, tail) == numbered(1, 2)
        assert sink.has_mark(part.job)

    def test_a_value_refused_for_good_goes_elsewhere(self, sink: ResultSink, other: ResultSink, part: Part) -> None:
        """The other outcomes of the batch are stored, the refused outcome is read, too, and the tail counts it."""
        self.need(SinkAbility.REFUSE)
        sink.mark(part.job)  # Now there is a place.
        self.refuse(sink, part.job, "task3")
        begin = sink.write(part, numbered(1), None)
        tail = begin
        for _ in range(2):
            tail = sink.write(part, numbered(2, 3, 4), begin)
            assert (tail.outcomes, tail.diverted) == (4, 1)
            assert read_all(other, part, tail) == numbered(1, 2, 3, 4)
        tail = sink.write(part, numbered(5), tail)
        assert (tail.outcomes, tail.diverted) == (5, 1)
        assert read_all(other, part, tail) == numbered(1, 2, 3, 4, 5)

    def test_a_tail_of_more_than_there_is(self, sink: ResultSink, part: Part) -> None:
        """The place lost data, for example by an old backup: a reader is told, and takes no part for the whole."""
        tail = sink.write(part, numbered(1, 2), None)
        lies = replace(tail, last=3, outcomes=3, digest="0" * len(tail.digest))
        with pytest.raises(GarbageError):
            list(sink.read(part, lies))

    def test_a_writer_killed_at_each_step(self, sink: ResultSink, part: Part) -> None:
        """No reader sees anything of the killed write; and the next writer writes the same, and more."""
        self.need(SinkAbility.KILL)
        shards = range(100, 101 + self.most_kills)
        begin = {shard: sink.write(part._replace(shard=shard), numbered(1), None) for shard in shards}
        plan = {
            "url": self.url,
            "options": dict(self.options),
            "job": part.job,
            "tails": {shard: tail.to_json() for shard, tail in begin.items()},
            "kill_points": sorted(self.kill_points),
        }
        command = [sys.executable, "-m", "smoothcluster.testing.sink_conformance.victim"]
        done = subprocess.run(
            command, input=json.dumps(plan), capture_output=True, text=True, check=False, timeout=VICTIM_SECONDS
        )
        assert done.returncode == 0, done.stderr
        killed: list[str] = json.loads(done.stdout)
        assert len(killed) >= self.least_kills, killed
        for shard, tail in [*begin.items()][: len(killed) + 1]:
            to = part._replace(shard=shard)
            assert read_all(sink, to, tail) == numbered(1), killed[: shard - 99]
            after = sink.write(to, [*victims_batch(), *numbered(4)], tail)
            assert read_all(sink, to, after) == numbered(1, 2, 3, 4), killed[: shard - 99]


def victims_batch() -> list[NumberedOutcome]:
    """Return the outcomes that each killed writer writes."""
    return numbered(2, 3)
