"""Rules of writing, reading and deleting, for one writer and for several."""

import secrets
from concurrent.futures import ThreadPoolExecutor

import pytest

from smoothcluster.errors import GarbageError, PartDeletedError, UsageError
from smoothcluster.model import JSON, Outcome, State
from smoothcluster.sinks import NumberedOutcome, Part, ResultSink, open_sink
from smoothcluster.testing.sink_conformance.kit import SinkKit, in_order, numbered, read_all

STRANGE_TEXT = 'NUL \0, half a pair \ud83d, a line\n\r\u2028, "quotes" \\ and \U0001f41d'


class WritingRules(SinkKit):
    """A tail names what counts, and nothing else is ever read."""

    def test_every_outcome_is_read_as_written(self, sink: ResultSink, other: ResultSink, part: Part) -> None:
        """Any text and any JSON value pass, so no page of the web can stop a crawl."""
        values: list[JSON] = [None, True, 0, -1.5, 2**70, STRANGE_TEXT, [], {}, [{STRANGE_TEXT: [None]}], "x" * 300_000]
        batch = [
            NumberedOutcome(5, Outcome(f"{n}{STRANGE_TEXT}", State.DONE, value, None, n + 1, "crawler_0", 3))
            for n, value in enumerate(values)
        ]
        batch.append(NumberedOutcome(6, Outcome("http://h/" + "a" * 9000, State.FAILED, None, STRANGE_TEXT, 1, "m", 3)))
        batch.append(NumberedOutcome(9, Outcome("killer", State.QUARANTINED, None, "", 2, "m", 2**40)))
        tail = sink.write(part, batch, None)
        assert (tail.last, tail.outcomes) == (9, len(batch))
        assert in_order([*other.read(part, tail)]) == in_order(batch)

    def test_batches_are_read_up_to_the_tail(self, sink: ResultSink, other: ResultSink, part: Part) -> None:
        """A reader with an older tail does not see later batches, and needs nothing but the tail."""
        first = sink.write(part, numbered(1, 4), None)
        second = other.write(part, numbered(6), first)
        third = sink.write(part, numbered(7, 8), second)
        for tail, seqs in ((first, (1, 4)), (second, (1, 4, 6)), (third, (1, 4, 6, 7, 8))):
            assert read_all(other, part, tail) == numbered(*seqs)
            assert (tail.last, tail.outcomes) == (seqs[-1], len(seqs))

    def test_many_outcomes_are_read_once_each(self, sink: ResultSink, part: Part) -> None:
        """Also if a single commit recorded more outcomes than a reader reads at once."""
        batch = [NumberedOutcome(3, each.outcome) for each in numbered(*range(1300))] + numbered(*range(2000, 2100))
        tail = sink.write(part, batch, None)
        assert in_order([*sink.read(part, tail)]) == in_order(batch)

    def test_parts_are_apart(self, sink: ResultSink, part: Part) -> None:
        """Neither another shard of the job nor another job with equal tasks changes a part."""
        parts = [part, part._replace(shard=8), Part(f"{part.job}0", part.shard)]
        tails = [sink.write(each, numbered(n + 1, n + 2, mood=str(n)), None) for n, each in enumerate(parts)]
        sink.delete(parts[2])
        for n, each in enumerate(parts[:2]):
            assert read_all(sink, each, tails[n]) == numbered(n + 1, n + 2, mood=str(n))

    def test_a_write_without_a_commit_is_not_seen(self, sink: ResultSink, part: Part) -> None:
        """The coordination store is the only truth: its tail decides."""
        tail = sink.write(part, numbered(1), None)
        sink.write(part, numbered(2), tail)
        assert read_all(sink, part, tail) == numbered(1)

    def test_a_block_may_be_written_twice(self, sink: ResultSink, other: ResultSink, part: Part) -> None:
        """The answer to the first write was lost, so the writer repeats the write: each outcome is there once."""
        begin = sink.write(part, numbered(1), None)
        once, again = sink.write(part, numbered(2, 3), begin), sink.write(part, numbered(2, 3), begin)
        for tail in (once, again):  # If the answer was not lost but late, either tail may be committed.
            assert read_all(other, part, tail) == numbered(1, 2, 3)
            assert tail.outcomes == 3

    def test_a_successor_may_write_more(self, sink: ResultSink, other: ResultSink, part: Part) -> None:
        """The former owner died between the write and the commit; meanwhile more outcomes were recorded."""
        begin = sink.write(part, numbered(1), None)
        sink.write(part, numbered(2, 3), begin)
        tail = other.write(part, numbered(2, 3, 4, 5), begin)
        assert read_all(sink, part, tail) == numbered(1, 2, 3, 4, 5)

    @pytest.mark.parametrize("length", [1, 2, 3])
    def test_a_late_write_of_a_replaced_owner_changes_nothing(
        self, sink: ResultSink, other: ResultSink, part: Part, length: int
    ) -> None:
        """A paused writer (zombie), or a request that was under way for long, ends when the successor is far ahead."""
        begin = sink.write(part, numbered(1), None)
        tail = other.write(part, numbered(2, 3), begin)
        tail = other.write(part, numbered(4, 5), tail)
        sink.write(part, numbered(2, 3, 4)[:length], begin)  # late
        assert read_all(sink, part, tail) == numbered(1, 2, 3, 4, 5)
        tail = other.write(part, numbered(6), tail)
        sink.write(part, numbered(2, 3, 4)[:length], begin)  # later
        assert read_all(sink, part, tail) == numbered(1, 2, 3, 4, 5, 6)

    def test_writers_at_the_same_time(self, sink: ResultSink, other: ResultSink, part: Part) -> None:
        """Owner and zombie write the same part, and the owners of other shards write beside them."""
        parts = [part._replace(shard=shard) for shard in range(4)]
        batch = numbered(*range(1, 40))
        with ThreadPoolExecutor(8) as pool:
            writes = [pool.submit(each.write, to, batch, None) for to in parts for each in (sink, other)]
            tails = [write.result() for write in writes]
        for to, tail in zip([each for each in parts for _ in "ab"], tails, strict=True):
            assert read_all(sink, to, tail) == batch

    def test_after_a_rollback_of_the_store_no_outcome_is_missing(self, sink: ResultSink, part: Part) -> None:
        """The store lost the last commits, and uses their numbers again. A writer from before is late, besides."""
        begin = sink.write(part, numbered(1), None)
        lost = sink.write(part, [*numbered(2, 3), *numbered(4, mood=" lost")], begin)
        tail = sink.write(part, numbered(2), begin)
        tail = sink.write(part, [NumberedOutcome(5, numbered(3)[0].outcome), *numbered(6)], tail)
        sink.write(part, numbered(5, 6, mood=" lost"), lost)
        sink.write(part, [NumberedOutcome(8, numbered(3)[0].outcome)], lost)  # In the lost history, it ended later.
        found = [each.outcome for each in sink.read(part, tail)]
        assert len({outcome.task_id for outcome in found}) == len(found)
        expected = [each.outcome for each in numbered(1, 2, 3, 6)]
        assert [outcome for outcome in expected if outcome not in found] == []

    def test_a_deleted_part_stays_deleted(self, sink: ResultSink, other: ResultSink, part: Part) -> None:
        """Also for a reader with an old tail, and for a late writer."""
        tail = sink.write(part, numbered(1, 2), None)
        sink.delete(part)
        sink.delete(part)
        try:
            late = other.write(part, numbered(3), tail)
        except PartDeletedError:
            late = tail
        for old in (tail, late):
            with pytest.raises(GarbageError):
                list(sink.read(part, old))

    def test_a_part_that_never_was_can_be_deleted(self, sink: ResultSink, part: Part) -> None:
        """An interrupted delete is repeated, by a member that does not know how far the first came."""
        sink.delete(part)

    def test_a_mark_is_found_by_others(self, sink: ResultSink, other: ResultSink) -> None:
        """So members notice if they mean different places."""
        name = secrets.token_hex(8)
        assert not other.has_mark(name)
        sink.mark(name)
        sink.mark(name)
        assert other.has_mark(name)
        assert not other.has_mark(f"{name}0")

    @pytest.mark.parametrize("seqs", [(), (2, 1), (5, 6)], ids=str)
    def test_a_batch_that_makes_no_sense_is_refused(self, sink: ResultSink, part: Part, seqs: tuple[int, ...]) -> None:
        """No outcomes, outcomes out of order, or outcomes that the tail has: a mistake of the caller."""
        tail = sink.write(part, numbered(5), None)
        with pytest.raises(ValueError, match="batch"):
            sink.write(part, numbered(*seqs), tail)

    def test_the_url_leads_to_the_same_place(self, sink: ResultSink, part: Part) -> None:
        """Members compare the URLs: the one form of a URL is its own one form."""
        tail = sink.write(part, numbered(1), None)
        same = open_sink(sink.url, self.options)
        assert same.url == sink.url
        assert read_all(same, part, tail) == numbered(1)
        same.close()
        same.close()

    @pytest.mark.parametrize("name", ["../j", "a/b", ""])
    def test_a_job_never_leads_out_of_the_place(self, sink: ResultSink, name: str) -> None:
        """The name of a job comes from the store, and becomes part of a path."""
        with pytest.raises(UsageError):
            sink.write(Part(name, 1), numbered(1), None)
