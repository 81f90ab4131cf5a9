"""The independent record: what really happened, from the store's own history, and whether it may.

It knows nothing of what members believe. It reads every commit as the store applies it, with
its own eyes (`json`, not the library's parsers), and raises `Violation` at the first step that
breaks a promise.
"""

import json
from typing import Any

from smoothcluster.backend import Entry
from smoothcluster.memory import Applied, MemoryStore
from smoothcluster.testing.simulate.pool import children, fails


class Violation(AssertionError):
    """A promise was broken. The message says which, and how."""


def _data(entry: Entry | None) -> dict[str, Any]:
    return {} if entry is None else json.loads(entry.value)


class IndependentRecord:
    """Watches one group in one store."""

    def __init__(self, store: MemoryStore, group: str) -> None:
        self.author = ""
        self.steps: list[str] = []
        """What was changed, by whom: the tail explains a violation."""
        self.outcomes: dict[tuple[str, str], str] = {}
        self.expected: set[tuple[str, str]] = set()
        """Every task whose submit was acknowledged, or whose adding was recorded."""
        self.robbed: set[str] = set()
        """Incarnations whose lease was taken from them before its time: their clocks cannot know."""
        self.starts = 0
        self.handovers = 0
        self._store, self._group = store, group
        self._incarnations: set[str] = set()
        self._epochs: dict[str, int] = {}
        store.observers.append(self._see)

    def _see(self, step: Applied) -> None:
        who = f"lease {step.lease} of somebody ends" if step.lease else self.author
        self.steps.append(f"{who}: " + ", ".join(sorted(key.partition("/")[2] for key in step.after)))
        for key, after in step.after.items():
            kind = key.split("/")[1]
            before = step.before[key]
            if kind == "shards":
                self._see_shard(key, before, after)
            elif kind == "results" and after is not None:
                self._see_results(key, before, after, step)
            elif kind == "members" and before is None:
                self._see_birth(key)
        self._see_seats()

    def _see_birth(self, key: str) -> None:
        if key in self._incarnations:
            raise Violation(f"P2: incarnation {key} was used for a second lease")
        self._incarnations.add(key)

    def _see_shard(self, key: str, before: Entry | None, after: Entry | None) -> None:
        old, new = _data(before), _data(after)
        if after is None:
            raise Violation(f"P2: the fence {key} was deleted by {self.author}")
        epoch = max(old.get("epoch", 0), self._epochs.get(key, 0))
        moved = new["owner"] is not None and new["owner"] != old.get("owner")
        if new["epoch"] != epoch + moved:
            raise Violation(f"P2: {key} went from epoch {epoch} to {new['epoch']} by {self.author}")
        self._epochs[key] = new["epoch"]
        self.handovers += moved

    def _see_results(self, key: str, before: Entry | None, after: Entry, step: Applied) -> None:
        _, _, job, shard, _ = key.split("/")
        if before is not None:
            raise Violation(f"P3: {key} was written over by {self.author}")
        fence = f"{self._group}/shards/{shard}"
        # The shard as it was before this commit: who could speak for it.
        owner = _data(step.before.get(fence, self._store.tree.entries.get(fence)))
        data = json.loads(after.value)
        if (owner.get("name"), owner.get("epoch")) != (data["runner"], data["epoch"]) or self.author != data["runner"]:
            raise Violation(f"P2: {self.author} recorded in {key} as {data['runner']}@{data['epoch']}, owner {owner}")
        for task, state, _, _, _ in data["outcomes"]:
            if (job, task) in self.outcomes:
                raise Violation(f"P3: {task} of {job} was recorded twice, the second time in {key}")
            self.outcomes[job, task] = state
            if state == "done":
                self.expected.update((job, child) for child in children(task))

    def _see_seats(self) -> None:
        entries = self._store.tree.entries
        spec = _data(entries.get(f"{self._group}/spec"))
        holders = [
            holder
            for number in range(spec.get("runner") or 0)
            if (holder := _data(entries.get(f"{self._group}/seats/{number}")).get("holder"))
            and f"{self._group}/members/{holder}" in entries
        ]
        if len(holders) != len(set(holders)):
            raise Violation(f"P1: somebody holds two seats: {holders}")

    def started(self, incarnation: str, task: str) -> None:
        """A handler begins to run, on a member that thinks it is *incarnation*."""
        self.starts += 1
        if f"{self._group}/members/{incarnation}" not in self._store.tree.entries and incarnation not in self.robbed:
            raise Violation(f"P4: {task} was started by {incarnation}, whose lease has run out")

    def finished(self, job: str) -> None:
        """A client was told that *job* is finished."""
        missing = {task for name, task in self.expected - self.outcomes.keys() if name == job}
        if missing:
            raise Violation(f"P3: {job} was called finished while {sorted(missing)[:5]} had no outcome")

    def unfinished(self) -> set[tuple[str, str]]:
        """What still has no outcome."""
        return self.expected - self.outcomes.keys()

    def check_end(self) -> None:
        """Every expected task has its one outcome, and the right one; nothing was made up."""
        for (job, task), state in self.outcomes.items():
            if (job, task) not in self.expected:
                raise Violation(f"P3: {task} of {job} was recorded but never submitted")
            if (state == "failed") != fails(task):
                raise Violation(f"P3: {task} of {job} ended as {state}")
