"""The independent record: what really happened, from the store's own history, and whether it may.

It knows nothing of what members believe. It reads every commit as the store applies it, with
its own eyes (`json`, not the library's parsers), and raises `Violation` at the first step that
breaks a promise.
"""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from typing import Any

from smoothcluster.backend import Entry
from smoothcluster.memory import Applied, MemoryStore
from smoothcluster.testing.simulate.pool import children, fails, kills
from smoothcluster.work.verdict import ALONE_EXPIRED


class Violation(AssertionError):  # noqa: N818  # it is no error of ours
    """A promise was broken. The message says which, and how."""


@lru_cache(4096)
def _parsed(value: bytes) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(value)
    return data


def data_of(entry: Entry | None) -> dict[str, Any]:
    """What the key holds, for looking at; nothing if it is not there."""
    return {} if entry is None else _parsed(entry.value)


class IndependentRecord:
    """Watches one group in one store."""

    def __init__(self, store: MemoryStore, group: str, isolation: str, faults: Collection[str]) -> None:
        self.author = ""
        self.steps: list[str] = []
        """What was changed, by whom: the tail explains a violation."""
        self.outcomes: dict[tuple[str, str], str] = {}
        self.expected: set[tuple[str, str]] = set()
        """Every task whose submit has begun (and will be completed), or whose adding was recorded."""
        self.given_up: dict[str, float] = {}
        """Incarnations that are dead or were called so, and since when: whoever believes it may take what is theirs."""
        self.robbed: set[str] = set()
        """Incarnations whose lease or record was taken from them before its time: their clocks cannot know."""
        self.starts = 0
        self.handovers = 0
        """Shards that had an owner before and were claimed, or given away."""
        self.quarantined = 0
        self.submitted: set[tuple[str, str]] = set()
        """Of what is expected, that which clients hand in."""
        self.forgetful = False
        """Whether the store has ever lost what it had acknowledged. Starts cannot be counted then."""
        self._store, self._group = store, group
        # Where no child can run the handler, a task may take two members whose death is seen, and more if it is not.
        self._most_lost = {"every": 0, "suspects": 1, "none": 1 + ALONE_EXPIRED}[isolation]
        # There, what runs alone when its member is killed, or taken for dead, is taken for what killed it.
        self._sharp = isolation != "none" or {"kill", "restart", "slander"}.isdisjoint(faults)
        self._lost: Counter[tuple[str, str]] = Counter()
        self._incarnations: set[str] = set()
        self._epochs: dict[str, int] = {}
        self._started: dict[tuple[str, str], list[tuple[int, int]]] = {}
        store.observers.append(self._see)

    def submit(self, job: str, tasks: Iterable[str]) -> None:
        """A client begins to hand in *tasks*."""
        self.submitted.update((job, task) for task in tasks)
        self.expected |= self.submitted

    def past(self) -> "tuple[object, ...]":
        """What is known now, for `go_back`."""
        return dict(self.outcomes), set(self.expected), set(self._incarnations), dict(self._epochs), self._lost.copy()

    def go_back(self, past: "tuple[Any, ...]") -> None:
        """The store has lost what it acknowledged since: it has not happened."""
        self.forgetful = True
        self.robbed |= {key.rpartition("/")[2] for key in self._incarnations}
        self.outcomes, self.expected, self._incarnations, self._epochs, self._lost = past
        self.expected |= self.submitted

    def _see(self, step: Applied) -> None:
        if not step.changes and step.lease is None:
            self.steps.append("THE STORE FORGETS")
            return
        who = f"lease {step.lease} of somebody ends" if step.lease else self.author
        self.steps.append(f"{who}: " + ", ".join(sorted(key.partition("/")[2] for key in step.after)))
        kinds = {key: key.split("/")[1] for key in step.after}
        for key, after in step.after.items():
            before = step.before[key]
            if kinds[key] == "shards":
                self._see_shard(key, before, after, step)
            elif kinds[key] == "results" and after is not None:
                self._see_results(key, before, after, step)
            elif kinds[key] == "jobs" and data_of(after).get("state") == "finished":
                self.told_finished(key.rpartition("/")[2])
            elif kinds[key] == "members" and before is None:
                self._see_birth(key)
        if not {"seats", "members", "spec"}.isdisjoint(kinds.values()):
            self._see_seats(step)

    def _see_birth(self, key: str) -> None:
        if key in self._incarnations:
            raise Violation(f"P2: incarnation {key} was used for a second lease")
        self._incarnations.add(key)
        living = [data_of(entry) for entry in self._store.tree.list(f"{self._group}/members")]
        for what in ("name", "join"):
            values = [member[what] for member in living]
            if len(set(values)) < len(values):
                raise Violation(f"P1: two members of one {what}: {values}")

    def _member(self, incarnation: str | None) -> dict[str, Any]:
        """The member's record as it is now."""
        return data_of(self._store.tree.entries.get(f"{self._group}/members/{incarnation}"))

    def _store_says(self, path: str) -> dict[str, Any]:
        return data_of(self._store.tree.entries.get(f"{self._group}/{path}"))

    # Who owns what

    def _see_shard(self, key: str, before: Entry | None, after: Entry | None, step: Applied) -> None:
        old, new = data_of(before), data_of(after)
        if after is None:
            raise Violation(f"P2: the fence {key} was deleted by {self.author}")
        epoch = max(old.get("epoch", 0), self._epochs.get(key, 0))
        moved = new["owner"] is not None and new["owner"] != old.get("owner")
        # Whoever finds its own shard behind takes it over from itself.
        again = self.forgetful and new["owner"] == old.get("owner") and new["epoch"] == epoch + 1
        if new["epoch"] != epoch + moved and not again:
            raise Violation(f"P2: {key} went from epoch {epoch} to {new['epoch']} by {self.author}")
        self._epochs[key] = new["epoch"]
        if moved:
            self.handovers += epoch > 0
            if not self._member(new["owner"]):
                raise Violation(f"P2: {key} was claimed by {self.author} for {new['owner']}, which has ended")
            self._see_loss(key, old.get("owner"), step)

    def _see_loss(self, key: str, former: str | None, step: Applied) -> None:
        """Whoever loses something gave it, has ended or is taken for dead, or was no Runner that works."""
        then = step.before.get(f"{self._group}/members/{former}")
        was = data_of(then) if then is not None else self._member(former)
        ended = f"{self._group}/members/{former}" not in self._store.tree.entries
        if former in self.given_up or ended or not was or was["name"] == self.author:
            return
        seated = was["seat"] is not None or self._store_says("spec")["backup"] is None
        if was["running"] and seated:
            raise Violation(f"P1: {key} was taken by {self.author} from {former}, which lives and works")

    def _see_seats(self, step: Applied) -> None:
        """No two members have one seat, nor one member two, by the seats' and by the members' own records."""
        entries = self._store.tree.entries
        runner = data_of(entries.get(f"{self._group}/spec")).get("runner") or 0
        seats = {f"{self._group}/seats/{number}": number for number in range(runner)}
        by_seats: dict[str, int] = {}
        for key, number in seats.items():
            holder = data_of(entries.get(key)).get("holder")
            if holder is not None and self._member(holder):
                if holder in by_seats:
                    raise Violation(f"P1: {holder} holds seats {by_seats[holder]} and {number}")
                by_seats[holder] = number
            if key in step.after and holder is not None:
                self._see_loss(key, data_of(step.before[key]).get("holder"), step)
        by_members = {}
        for entry in self._store.tree.list(f"{self._group}/members"):
            member = data_of(entry)
            if member["seat"] is not None:
                by_members[member["incarnation"]] = member["seat"]
        if by_seats != by_members:
            raise Violation(f"P1: by the seats' records they belong to {by_seats}, by the members' own to {by_members}")

    # What became of the tasks

    def _see_results(self, key: str, before: Entry | None, after: Entry, step: Applied) -> None:
        _, _, job, shard, _ = key.split("/")
        if before is not None:
            raise Violation(f"P3: {key} was written over by {self.author}")
        fence = f"{self._group}/shards/{shard}"
        # The shard as it was before this commit: who could speak for it.
        owner = data_of(step.before.get(fence, self._store.tree.entries.get(fence)))
        data = json.loads(after.value)
        if (owner.get("name"), owner.get("epoch")) != (data["runner"], data["epoch"]) or self.author != data["runner"]:
            raise Violation(f"P2: {self.author} recorded in {key} as {data['runner']}@{data['epoch']}, owner {owner}")
        for task, state, _, _, attempts in data["outcomes"]:
            if (job, task) in self.outcomes:
                raise Violation(f"P3: {task} of {job} was recorded twice, the second time in {key}")
            self.outcomes[job, task] = state
            if state == "quarantined":
                self._see_verdict(job, task, step)
            if state == "done":
                self.expected.update((job, child) for child in children(task, attempts))
            starts = len(self._started.get((job, task), ()))
            if not 1 <= starts <= attempts and not self.forgetful:
                raise Violation(f"P5: {task} of {job} was started {starts} times, and recorded with {attempts}")

    def _see_verdict(self, job: str, task: str, step: Applied) -> None:
        """Only what kills is convicted, and with a record beside its outcome."""
        self.quarantined += 1
        if self._sharp and not kills(task):
            raise Violation(f"P5: {task} of {job} was quarantined, and is innocent")
        kept = [data_of(step.after[key]) for key in step.after if key.split("/")[1] == "quarantine"]
        if not any((each.get("job"), each.get("task", {}).get("id")) == (job, task) for each in kept):
            raise Violation(f"P5: {task} of {job} was quarantined without a record of it")

    def lost(self, incarnation: str, place: tuple[str, int], job: str, task: str, run: Mapping[str, int]) -> None:
        """A member's process has died of a task; the arguments are those of `started`."""
        if self.forgetful and not self._marked(incarnation, place, run):
            return  # The store has forgotten that it was started: nobody can know what killed that member.
        self._lost[job, task] += 1
        if self._lost[job, task] > self._most_lost:
            raise Violation(f"P5: {self._lost[job, task]} members have died of {task} of {job}")

    def started(self, incarnation: str, place: tuple[str, int], job: str, task: str, run: Mapping[str, int]) -> None:
        """A handler begins to run, on a member that thinks it is *incarnation*.

        *run* is what the member believes: shard, epoch, attempt. *place* is where the task stands.
        """
        self.starts += 1
        if not self._member(incarnation) and incarnation not in self.robbed:
            raise Violation(f"P4: {task} was started by {incarnation}, whose lease has run out")
        if self.forgetful:
            return  # Marks and starts may be among what was lost.
        if self._marked(incarnation, place, run) is False:
            raise Violation(f"P5: {task} was started by {incarnation} before that was in the store")
        earlier = self._started.setdefault((job, task), [])
        for epoch, attempt in earlier:
            if not (attempt < run["attempt"] if epoch <= run["epoch"] else attempt > run["attempt"]):
                raise Violation(f"P5: attempt {run['attempt']} at {task} by {incarnation} was not the first so called")
        earlier.append((run["epoch"], run["attempt"]))

    def _marked(self, incarnation: str, place: tuple[str, int], run: Mapping[str, int]) -> bool | None:
        """Whether the store says that this runs; None if the shard is not *incarnation*'s under that epoch."""
        shard = self._store_says(f"shards/{run['shard']}")
        if (shard.get("owner"), shard.get("epoch")) != (incarnation, run["epoch"]):
            return None
        chunk, index = place
        return bool(int(shard["open"].get(chunk, [0, "0", "0"])[2], 16) >> index & 1)

    def told_finished(self, job: str) -> None:
        """A client was told that *job* is finished, or may now be."""
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
            if kills(task) and state != "quarantined":
                raise Violation(f"P5: {task} of {job}, which kills, ended as {state}")
            if state != "quarantined" and (state == "failed") != fails(task):
                raise Violation(f"P3: {task} of {job} ended as {state}")
        left = [key for key in self._store.tree.entries if key.startswith(f"{self._group}/tasks/")]
        if left:
            raise Violation(f"P3: chunks are left that nobody needs: {left[:5]}")
