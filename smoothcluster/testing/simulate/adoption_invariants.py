"""Checks adoption (P6): the adopters of dead members' shards, the number of shards, and the time.

`Adoptions` reads the store's history next to the independent record.
"""

from collections.abc import Callable
from math import inf
from typing import Any

from smoothcluster.memory import Applied, MemoryStore
from smoothcluster.testing.simulate.invariants import IndependentRecord, Violation, data_of

MEMBER_PACING = {"shards": 1, "pause": 0.05, "window": 2.0, "memory": 12.0, "quiet": 2.0}
"""The pacing of the members, in the simulator's short seconds; `share` and `least` are at their defaults."""

NEWCOMER_GRACE_SECONDS = 5.0
"""Seconds during which the other members may not know of a newcomer yet."""


class Adoptions:
    """Watches one group in one store; *record* knows the author of each commit, and the suspected members."""

    def __init__(self, store: MemoryStore, group: str, now: Callable[[], float], record: IndependentRecord) -> None:
        self.count = 0
        """The number of adopted shards, without adoptions by members without shards."""
        self.opened = 0
        """The number of times the breaker opened."""
        self._store, self._group, self._now, self._record = store, group, now, record
        self._born: dict[str, float] = {}
        self._working: dict[str, float] = {}
        """The time when each incarnation began to work; some wait between joining and working."""
        self._alive: dict[str, float] = {}
        """The time when each name last had a living member."""
        self._told: dict[str, tuple[str, float]] = {}
        """The deaths recorded in the breaker, by incarnation: name, and earliest known time."""
        self._closed = -inf
        store.observers.append(self._see)

    def _data(self, path: str, step: Applied | None = None) -> dict[str, Any]:
        """A record as of now, or as of the moment before *step*."""
        key = f"{self._group}/{path}"
        if step is not None and key in step.before:
            return data_of(step.before[key])
        return data_of(self._store.tree.entries.get(key))

    def _members(self) -> dict[str, dict[str, Any]]:
        living = (data_of(entry) for entry in self._store.tree.list(f"{self._group}/members"))
        return {member["incarnation"]: member for member in living}

    def _see(self, step: Applied) -> None:
        if self._record.forgetful or (not step.changes and step.lease is None):
            return  # The store may have lost the breaker's deaths, and the members' records.
        self._see_members(step)
        if f"{self._group}/breaker" in step.after:
            self._see_breaker(step)
        taken: dict[str, list[tuple[str, str]]] = {}
        for key, after in step.after.items():
            if key.startswith(f"{self._group}/shards/"):
                before, owner = data_of(step.before[key]), data_of(after).get("owner")
                given = before.get("name") == self._record.author
                if owner is not None and owner != before.get("owner"):
                    taken.setdefault(owner, []).append((key, "" if given else before.get("owner") or ""))
        for owner, shards in taken.items():
            self._see_capacity(owner)
            self._see_adoption(owner, [(key, old) for key, old in shards if self._died(old)], step)

    def _see_members(self, step: Applied) -> None:
        for key, after in step.after.items():
            if key.startswith(f"{self._group}/members/"):
                member = data_of(after or step.before[key])
                self._born.setdefault(member["incarnation"], self._now())
                if member["running"]:
                    self._working.setdefault(member["incarnation"], self._now())
                self._alive[member["name"]] = self._now()

    def _see_breaker(self, step: Applied) -> None:
        before, after = self._data("breaker", step), self._data("breaker")
        for incarnation, name, _ in after["dead"]:
            if incarnation not in self._told:
                # The death may be old: members record deaths in the breaker only when there is a shard to adopt.
                self._told[incarnation] = (name, self._record.given_up.get(incarnation, self._now()))
        self.opened += after["open"] and not before.get("open")
        if before.get("open") and not after["open"]:
            self._closed = self._now()

    def _died(self, incarnation: str) -> bool:
        """Whether *incarnation* died, by the store: a leaving owner clears the shards, a transferring owner lives."""
        key = f"{self._group}/members/{incarnation}"
        return bool(incarnation) and key not in self._store.tree.entries and incarnation in self._born

    def _owned(self, owner: str) -> list[str]:
        shards = self._store.tree.list(f"{self._group}/shards")
        return [entry.key for entry in shards if data_of(entry).get("owner") == owner]

    def _see_capacity(self, owner: str) -> None:
        capacity = self._data(f"members/{owner}").get("capacity")
        if capacity is not None and len(self._owned(owner)) > capacity:
            raise Violation(f"P6: {owner} owns {len(self._owned(owner))} shards, and has room for {capacity}")

    def _see_adoption(self, owner: str, orphans: list[tuple[str, str]], step: Applied) -> None:
        if not orphans:
            return
        told = {incarnation for incarnation, _, _ in self._data("breaker").get("dead", ())}
        for key, old in orphans:
            if old not in told:
                raise Violation(f"P6: {key} was taken by {owner} from {old}, of whose death the breaker does not know")
        had = len(self._owned(owner)) - sum(key.startswith(f"{self._group}/shards/") for key in step.after)
        if had <= 0 or self._last(owner):
            return
        self.count += len(orphans)
        if self._data("breaker", step).get("open"):
            raise Violation(f"P6: {owner} adopted {orphans} while the breaker was open")
        if len(orphans) > MEMBER_PACING["shards"]:
            raise Violation(f"P6: {owner} adopted {len(orphans)} shards at once")
        self._see_series(owner)

    def _last(self, owner: str) -> bool:
        """Whether *owner* may believe to be the last working member."""
        spec = self._data("spec")
        entries = sorted(self._store.tree.list(f"{self._group}/members"), key=lambda e: (data_of(e)["join"], e.created))
        members = [data_of(entry) for entry in entries]
        if spec["backup"] is None:
            able = members[: spec["runner"]]
        else:
            able = [member for member in members if member["seat"] is not None]
        others = {member["incarnation"] for member in able if member["running"]} - {owner, *self._record.given_up}
        return not any(self._now() - self._working[each] > NEWCOMER_GRACE_SECONDS for each in others)

    def _see_series(self, owner: str) -> None:
        """Check for an open breaker, by the deaths certainly seen by *owner*."""
        now = self._now()
        since = max(now - MEMBER_PACING["window"], self._closed, self._born[owner] + NEWCOMER_GRACE_SECONDS)
        dead = {name for name, at in self._told.values() if at > since}
        living = {member["name"] for member in self._members().values()}
        members = living | dead | {name for name, at in self._alive.items() if at > now - MEMBER_PACING["memory"]}
        if len(dead) >= 2 and len(dead) > len(members) / 2:
            raise Violation(f"P6: {owner} went on adopting though {sorted(dead)} of {sorted(members)} have died")
