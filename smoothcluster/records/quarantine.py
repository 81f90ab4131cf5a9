"""Quarantine, the dead-letter list: tasks that keep killing processes, with the evidence against them.

One commit writes the outcome of such a task to the results and a separate record to the quarantine.
The record stays until an operator releases or drops the task. A release submits copies of the tasks as
new jobs. The name of each new job depends only on the tasks, so an interrupted release can be repeated.
The release removes the records only after the submit.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from smoothcluster.arguments import check_name
from smoothcluster.errors import UsageError
from smoothcluster.model import Task
from smoothcluster.records.blame import describe, parse_entries
from smoothcluster.records.codec import GarbageError, dump, expect, expect_array, expect_object, load

MOST_EVIDENCE_ENTRIES = 50
"""How many entries of evidence the record keeps: the latest."""


@dataclass(frozen=True, slots=True)
class QuarantinedTask:
    """A task in quarantine."""

    id: str
    """The identifier for `release` and `drop`."""
    job: str
    task: Task
    error: str
    """The reason, for people; the same text as in the task's outcome."""
    evidence: Sequence[Mapping[str, object]]
    """For each start without an outcome: incarnation, epoch, evidence, and the time when the end was noticed."""
    attempts: int
    runner: str
    """Name of the member that recorded the task."""
    shard: int
    epoch: int
    at: float
    """Time of the record in seconds since 1970, by the clock of ``runner``."""

    @classmethod
    def of(  # parameters: one for each fact of the record
        cls, number: str, job: str, task: Task, blame: Sequence[str], attempts: int,
        runner: str, shard: int, epoch: int, at: float,
    ) -> "QuarantinedTask":  # fmt: skip
        """The quarantine record of *task*, with the latest entries of *blame* as evidence."""
        latest = list(parse_entries(blame))[-MOST_EVIDENCE_ENTRIES:]
        evidence: list[Mapping[str, object]] = [
            {"incarnation": each.incarnation, "epoch": each.epoch, "evidence": each.evidence, "at": each.at}
            for each in latest
        ]
        error = describe(blame)
        error = error if len(error) <= 1024 else error[:1023] + "…"
        return cls(number, job, task, error, evidence, attempts, runner, shard, epoch, at)

    def as_dict(self) -> dict[str, object]:
        """The task as a dictionary, as ``quarantine list --json`` prints and the store holds."""
        return {
            "id": self.id,
            "job": self.job,
            "task": self.task.to_json(),
            "error": self.error,
            "evidence": [dict(each) for each in self.evidence],
            "attempts": self.attempts,
            "runner": self.runner,
            "shard": self.shard,
            "epoch": self.epoch,
            "at": self.at,
        }

    def to_json(self) -> bytes:
        return dump(self.as_dict())

    @classmethod
    def from_json(cls, value: bytes) -> "QuarantinedTask":
        """The quarantined task in *value*; raise GarbageError if *value* holds anything else."""
        data = load(value)
        try:
            evidence = [expect_object(each) for each in expect_array(data["evidence"])]
            for each in evidence:
                expect(str, each["evidence"])
            at = float(data["at"])
            datetime.fromtimestamp(at, UTC)  # Raises an error for a time that no reader could show.
            return cls(
                expect(str, data["id"]), check_name("job", expect(str, data["job"])), Task.from_json(data["task"]),
                expect(str, data["error"]), evidence, expect(int, data["attempts"]), expect(str, data["runner"]),
                expect(int, data["shard"]), expect(int, data["epoch"]), at,
            )  # fmt: skip
        except (KeyError, ValueError, TypeError, AttributeError, OverflowError, OSError, UsageError) as error:
            raise GarbageError(f"the record is not a task in quarantine: {error!s:.120}") from None

    def report(self, note: Callable[..., object]) -> None:
        """Call *note* with the event ``quarantined``."""
        note("quarantined", id=self.id, job=self.job, task=self.task.id, shard=self.shard, evidence=self.evidence)


def name_of_release(job: str, quarantined: Sequence[QuarantinedTask]) -> str:
    """The name of the job under which these tasks of *job* are released: the same for the same tasks."""
    mark = hashlib.blake2b(",".join(sorted(each.id for each in quarantined)).encode(), digest_size=6).hexdigest()
    return f"{job[:80]}.{mark}"
