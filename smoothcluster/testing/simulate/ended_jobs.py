"""Checks of jobs that clients cancel or delete, for the independent record; see `invariants`."""

import json
from collections.abc import Mapping
from typing import Any, final

from smoothcluster.backend import Entry
from smoothcluster.memory import Applied, MemoryStore

CANCELLING_STATE = "cancelling"
ENDED_STATES = ("finished", "cancelled", "deleting", "deleted")


@final
class EndedJobs:
    """What a group's store shows of the ends of jobs. The methods return the breach of a promise, or an empty text."""

    def __init__(self, store: MemoryStore, group: str) -> None:
        self.closing: set[str] = set()
        """The jobs that a client has begun to cancel or to delete: their tasks need no outcome."""
        self.ids: dict[str, set[str]] = {}
        """The ids of all tasks that were ever written, by job."""
        self._store, self._group = store, group
        self._closed: set[tuple[str, str, int]] = set()
        """Shards of which the owner has cancelled tasks of a job: job, shard, epoch."""

    def past(self) -> dict[str, set[str]]:
        """The present knowledge, for `go_back`."""
        return {job: set(ids) for job, ids in self.ids.items()}

    def go_back(self, past: dict[str, set[str]]) -> None:
        """The store has lost all commits since."""
        self.ids = past
        self._closed.clear()

    def see(self, step: Applied) -> str:
        """Look at a commit that the store has applied."""
        for key, after in step.after.items():
            kind, *rest = key.split("/")[1:]
            if kind == "tasks" and after is not None:
                job = rest[1].partition("-")[0]
                self.ids.setdefault(job, set()).update(task["id"] for task in json.loads(after.value))
            elif kind in ("results", "seen") and after is None:
                state = self._state(rest[0])
                if state != "deleting" and (kind == "results" or state not in ENDED_STATES):
                    return f"P3: {key} was deleted while the job was {state}"
            elif kind == "jobs" and (before := step.before[key]) is not None and after is not None:
                states = [json.loads(entry.value)["state"] for entry in (before, after)]
                if states[0] in (CANCELLING_STATE, *ENDED_STATES) and states[1] in ("open", "sealed"):
                    return f"P3: {key} was {states[0]} and became {states[1]}"
            elif kind == "shards" and after is not None:
                wrong = self._see_shard(key, step.before[key], json.loads(after.value))
                if wrong:
                    return wrong
        return ""

    def _state(self, job: str) -> str:
        entry = self._store.tree.entries.get(f"{self._group}/jobs/{job}")
        return "gone" if entry is None else str(json.loads(entry.value)["state"])

    def _see_shard(self, key: str, before: Entry | None, new: Mapping[str, Any]) -> str:
        """Check that an owner which has cancelled tasks of a job starts no other task of the job."""
        old: dict[str, Any] = {"open": {}, "epoch": 0} if before is None else json.loads(before.value)
        epoch = new["epoch"]
        for name, chunk in new["open"].items() if old["epoch"] == epoch else ():
            job = name.partition("-")[0]
            run, was = int(chunk[2], 16), int(old["open"].get(name, [0, "0", "0"])[2], 16)
            if (job, key, epoch) in self._closed and run & ~was:
                return f"P3: a task of {name} was started in {key}, whose owner had cancelled others of the job"
        for job, tally in new["counts"].items():
            if tally.get("cancelled", 0) > old.get("counts", {}).get(job, {}).get("cancelled", 0):
                self._closed.add((job, key, epoch))
        return ""

    def miscounted(self, job: str, cancelled: int, outcomes: int) -> str:
        """Check the number of *cancelled* tasks of an ended job that has so many *outcomes*."""
        written = len(self.ids.get(job, ()))
        if cancelled == written - outcomes:
            return ""
        return f"P3: {job} has {written} tasks and {outcomes} outcomes, but {cancelled} cancelled tasks"
