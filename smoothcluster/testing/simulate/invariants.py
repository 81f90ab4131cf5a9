"""The independent record: checks every commit of a simulated store against the promises.

The record shares no state with the members. The record reads every commit as the store applies the commit, with a
separate parser (`json`, not the library's parsers), and raises `Violation` at the first broken promise.
"""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from typing import Any

from smoothcluster.backend import Entry
from smoothcluster.memory import Applied, MemoryStore
from smoothcluster.testing.simulate.ended_jobs import EndedJobs
from smoothcluster.testing.simulate.pool import children, fails, kills
from smoothcluster.work.verdict import ALONE_EXPIRED


class Violation(AssertionError):  # noqa: N818  # it is no error of ours
    """A promise was broken. The message names the promise and the breach."""


@lru_cache(4096)
def _parsed(value: bytes) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(value)
    return data


def data_of(entry: Entry | None) -> dict[str, Any]:
    """The parsed value of a key; an empty dict for an absent key."""
    return {} if entry is None else _parsed(entry.value)


class IndependentRecord:
    """Watches one group in one store."""

    def __init__(self, store: MemoryStore, group: str, isolation: str, faults: Collection[str]) -> None:
        self.author = ""
        self.steps: list[str] = []
        """Every change with the name of the author. The last entries explain a violation."""
        self.ends = EndedJobs(store, group)
        self.outcomes: dict[tuple[str, str], str] = {}
        self.expected: set[tuple[str, str]] = set()
        """Every task with a submit under way (all such submits complete), or with a recorded addition."""
        self.given_up: dict[str, float] = {}
        """Dead or suspected incarnations, and since when. A member may take shards and seats from these."""
        self.robbed: set[str] = set()
        """Incarnations robbed of their lease or record early. Their clocks cannot show the loss."""
        self.starts = 0
        self.handovers = 0
        """Shards with an earlier owner that were claimed or transferred."""
        self.quarantined = 0
        self.submitted: set[tuple[str, str]] = set()
        """The expected tasks that clients submit."""
        self.forgetful = False
        """Whether the store has ever lost acknowledged commits. Starts cannot be counted after such a loss."""
        self._store, self._group = store, group
        # Without children, a task may kill two members whose death is observed, and more without observers.
        self._most_lost = {"every": 0, "suspects": 1, "none": 1 + ALONE_EXPIRED}[isolation]
        # Without children, a task alone at work when its member is killed, or suspected, gets the blame.
        self._sharp = isolation != "none" or {"kill", "restart", "slander"}.isdisjoint(faults)
        self._lost: Counter[tuple[str, str]] = Counter()
        self._incarnations: set[str] = set()
        self._epochs: dict[str, int] = {}
        self._started: dict[tuple[str, str], list[tuple[int, int]]] = {}
        store.observers.append(self._see)

    def submit(self, job: str, tasks: Iterable[str]) -> None:
        """A client begins to submit *tasks*."""
        self.submitted.update((job, task) for task in tasks)
        self.expected |= self.submitted

    def past(self) -> "tuple[object, ...]":
        """The record's current knowledge, for `go_back`."""
        known = dict(self.outcomes), set(self.expected), set(self._incarnations), dict(self._epochs), self._lost.copy()
        return *known, self.ends.past()

    def go_back(self, past: "tuple[Any, ...]") -> None:
        """The store has lost the commits since *past*: the record forgets them, too."""
        self.forgetful = True
        self.robbed |= {key.rpartition("/")[2] for key in self._incarnations}
        self.outcomes, self.expected, self._incarnations, self._epochs, self._lost, ids = past
        self.ends.go_back(ids)
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
            elif kinds[key] == "events" and data_of(after).get("kind") == "too_large":
                raise Violation(f"P7: {self.author} has built a commit that is too large: {data_of(after)['why']}")
            elif kinds[key] == "members" and before is None:
                self._see_birth(key)
        if not {"seats", "members", "spec"}.isdisjoint(kinds.values()):
            self._see_seats(step)
        wrong = self.ends.see(step)
        if wrong:
            raise Violation(f"{wrong}, by {self.author}")

    def _see_birth(self, key: str) -> None:
        if key in self._incarnations:
            raise Violation(f"P2: incarnation {key} was used for a second lease")
        self._incarnations.add(key)

    def _member(self, incarnation: str | None) -> dict[str, Any]:
        """The member's current record."""
        return data_of(self._store.tree.entries.get(f"{self._group}/members/{incarnation}"))

    def _store_says(self, path: str) -> dict[str, Any]:
        return data_of(self._store.tree.entries.get(f"{self._group}/{path}"))

    # Ownership of shards and seats

    def _see_shard(self, key: str, before: Entry | None, after: Entry | None, step: Applied) -> None:
        old, new = data_of(before), data_of(after)
        if after is None:
            raise Violation(f"P2: the fence {key} was deleted by {self.author}")
        epoch = max(old.get("epoch", 0), self._epochs.get(key, 0))
        moved = new["owner"] is not None and new["owner"] != old.get("owner")
        # A member that finds the record of its own shard rolled back takes the shard over from itself.
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
        """Check that the former owner gave up the key, ended, is suspected dead, or was no working Runner."""
        then = step.before.get(f"{self._group}/members/{former}")
        was = data_of(then) if then is not None else self._member(former)
        ended = f"{self._group}/members/{former}" not in self._store.tree.entries
        if former in self.given_up or ended or not was or was["name"] == self.author:
            return
        seated = was["seat"] is not None or self._store_says("spec")["backup"] is None
        if was["running"] and seated:
            raise Violation(f"P1: {key} was taken by {self.author} from {former}, which lives and works")

    def _see_seats(self, step: Applied) -> None:
        """Check for every seat a single holder, and for every member at most one seat, by both kinds of records."""
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

    # Outcomes of tasks

    def _see_results(self, key: str, before: Entry | None, after: Entry, step: Applied) -> None:
        _, _, job, shard, _ = key.split("/")
        if before is not None:
            raise Violation(f"P3: {key} was written over by {self.author}")
        fence = f"{self._group}/shards/{shard}"
        # The shard before this commit: the owner then was entitled to record the outcomes.
        owner = data_of(step.before.get(fence, self._store.tree.entries.get(fence)))
        data = json.loads(after.value)
        if (owner.get("name"), owner.get("epoch")) != (data["runner"], data["epoch"]) or self.author != data["runner"]:
            raise Violation(f"P2: {self.author} recorded in {key} as {data['runner']}@{data['epoch']}, owner {owner}")
        for task, state, _, _, attempts, *_ in data["outcomes"]:
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
        """Check the quarantined task: a killer, with a quarantine record in the same commit."""
        self.quarantined += 1
        if self._sharp and not kills(task):
            raise Violation(f"P5: {task} of {job} was quarantined, and is innocent")
        kept = [data_of(step.after[key]) for key in step.after if key.split("/")[1] == "quarantine"]
        if not any((each.get("job"), each.get("task", {}).get("id")) == (job, task) for each in kept):
            raise Violation(f"P5: {task} of {job} was quarantined without a record of it")

    def lost(self, incarnation: str, place: tuple[str, int], job: str, task: str, run: Mapping[str, int]) -> None:
        """A member's process has died of a task; the arguments are those of `started`."""
        if self.forgetful and not self._marked(incarnation, place, run):
            return  # The start was lost with the rollback: the cause of this death cannot be known.
        self._lost[job, task] += 1
        if self._lost[job, task] > self._most_lost:
            raise Violation(f"P5: {self._lost[job, task]} members have died of {task} of {job}")

    def started(self, incarnation: str, place: tuple[str, int], job: str, task: str, run: Mapping[str, int]) -> None:
        """A handler begins to run, on a member with *incarnation* as its believed incarnation.

        *run* holds the beliefs of the member: shard, epoch, attempt. *place* is the chunk and the index of the task.
        """
        self.starts += 1
        if not self._member(incarnation) and incarnation not in self.robbed:
            raise Violation(f"P4: {task} was started by {incarnation}, whose lease has run out")
        if self.forgetful:
            return  # The rollback may have lost marks and starts.
        if self._marked(incarnation, place, run) is False:
            raise Violation(f"P5: {task} was started by {incarnation} before that was in the store")
        earlier = self._started.setdefault((job, task), [])
        for epoch, attempt in earlier:
            if not (attempt < run["attempt"] if epoch <= run["epoch"] else attempt > run["attempt"]):
                raise Violation(f"P5: attempt {run['attempt']} at {task} by {incarnation} was not the first so called")
        earlier.append((run["epoch"], run["attempt"]))

    def _marked(self, incarnation: str, place: tuple[str, int], run: Mapping[str, int]) -> bool | None:
        """Whether the store marks the run as started; None if *incarnation* is not the owner under the run's epoch."""
        shard = self._store_says(f"shards/{run['shard']}")
        if (shard.get("owner"), shard.get("epoch")) != (incarnation, run["epoch"]):
            return None
        chunk, index = place
        return bool(int(shard["open"].get(chunk, [0, "0", "0"])[2], 16) >> index & 1)

    def told_finished(self, job: str) -> None:
        """A client learned of the end of *job*, or the record of *job* now says finished."""
        missing = {task for name, task in self.expected - self.outcomes.keys() if name == job}
        if missing and job not in self.ends.closing:
            raise Violation(f"P3: {job} was called finished while {sorted(missing)[:5]} had no outcome")

    def unfinished(self) -> set[tuple[str, str]]:
        """The expected tasks without an outcome."""
        return {each for each in self.expected - self.outcomes.keys() if each[0] not in self.ends.closing}

    def check_end(self) -> None:
        """Check every outcome against the expected tasks, and the deletion of all chunks."""
        for (job, task), state in self.outcomes.items():
            if (job, task) not in self.expected:
                raise Violation(f"P3: {task} of {job} was recorded but never submitted")
            if kills(task) and state != "quarantined":
                raise Violation(f"P5: {task} of {job}, which kills, ended as {state}")
            if state != "quarantined" and (state == "failed") != fails(task):
                raise Violation(f"P3: {task} of {job} ended as {state}")
        directories = tuple(f"{self._group}/{directory}/" for directory in ("tasks", "queue"))
        left = [key for key in self._store.tree.entries if key.startswith(directories)]
        if left:
            raise Violation(f"P3: chunks are left that nobody needs: {left[:5]}")
