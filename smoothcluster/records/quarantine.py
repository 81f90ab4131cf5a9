"""Tasks known to kill, kept with the evidence until somebody decides what to do with them.

Each has a record of its own beside its outcome in the results, written by the same commit. A
release submits copies as new jobs, named after what they hold, so that one that was cut short can
be repeated; only then are the records removed.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from smoothcluster.errors import UsageError
from smoothcluster.model import Task
from smoothcluster.records.blame import describe, parse_entries
from smoothcluster.records.codec import GarbageError, dump, load

LONGEST = 50
"""Entries of evidence that are kept: the latest."""


@dataclass(frozen=True, slots=True)
class QuarantinedTask:
    """A task in quarantine."""

    id: str
    """What `release` and `drop` call it by."""
    job: str
    task: Task
    error: str
    """Why, for people; as in its outcome."""
    evidence: Sequence[Mapping[str, object]]
    """For each start that no outcome came of: incarnation, epoch, evidence, and when it was noticed."""
    attempts: int
    runner: str
    """Name of the member that recorded it."""
    shard: int
    epoch: int
    at: float
    """When, in seconds since 1970, by that member's clock."""

    @classmethod
    def of(
        cls, number: str, job: str, task: Task, blame: Sequence[str], attempts: int,
        runner: str, shard: int, epoch: int, at: float,
    ) -> "QuarantinedTask":  # fmt: skip
        """What is written down of a task that its *blame* convicts."""
        latest = list(parse_entries(blame))[-LONGEST:]
        evidence: list[Mapping[str, object]] = [
            {"incarnation": each.incarnation, "epoch": each.epoch, "evidence": each.evidence, "at": each.at}
            for each in latest
        ]
        error = describe(blame)
        error = error if len(error) <= 1024 else error[:1023] + "…"
        return cls(number, job, task, error, evidence, attempts, runner, shard, epoch, at)

    def as_dict(self) -> dict[str, object]:
        """As ``quarantine list --json`` prints it, and as the store holds it."""
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
        """What *value* holds; raise GarbageError if it is none."""
        data = load(value)
        try:
            return cls(
                str(data["id"]), str(data["job"]), Task.from_json(data["task"]), str(data["error"]),
                [dict(each) for each in data["evidence"]], int(data["attempts"]), str(data["runner"]),
                int(data["shard"]), int(data["epoch"]), float(data["at"]),
            )  # fmt: skip
        except (KeyError, ValueError, TypeError, AttributeError, OverflowError, UsageError) as error:
            raise GarbageError(f"not a task in quarantine: {error!s:.120}") from None

    def tell(self, note: Callable[..., object]) -> None:
        """Note the event."""
        note("quarantined", id=self.id, job=self.job, task=self.task.id, shard=self.shard, evidence=self.evidence)


def name_of_release(job: str, quarantined: Sequence[QuarantinedTask]) -> str:
    """The job that these tasks of *job* are released as: the same for the same tasks."""
    mark = hashlib.blake2b(",".join(sorted(each.id for each in quarantined)).encode(), digest_size=6).hexdigest()
    return f"{job[:80]}.{mark}"
