"""Checks joins: names and places are unique, and only the administrator changes the numbers of a living group."""

from smoothcluster.memory import MemoryStore
from smoothcluster.memory.tree import Applied
from smoothcluster.records.keys import last_part
from smoothcluster.testing.simulate.invariants import IndependentRecord, Violation, data_of

ADMINISTRATOR_NAME = "admin"
"""The name of the process that changes the numbers of a living group."""


class Joins:
    """Watches one group in one store; *record* knows the author of each commit."""

    def __init__(self, store: MemoryStore, group: str, record: IndependentRecord) -> None:
        self._store, self._group, self._record = store, group, record
        store.observers.append(self._see)

    def _see(self, step: Applied) -> None:
        if not step.changes and step.lease is None:
            return
        directories = f"{self._group}/members/", f"{self._group}/names/"
        if any(key.startswith(directories) and None in (step.before[key], after) for key, after in step.after.items()):
            self._see_members(step)
        spec = f"{self._group}/spec"
        if spec in step.after:
            self._see_numbers(step, spec)

    def _see_members(self, step: Applied) -> None:
        living = [(data_of(entry), entry) for entry in self._store.tree.list(f"{self._group}/members")]
        names = {member["name"]: member["incarnation"] for member, _ in living}
        if len(names) < len(living):
            raise Violation(f"P1: two members of one name: {[member['name'] for member, _ in living]}")
        held = {last_part(e.key): e.value.decode() for e in self._store.tree.list(f"{self._group}/names")}
        if names != held:
            raise Violation(f"P1: the names {held} are not those of the members {names}")
        places = {entry.key: (member["join"], entry.created) for member, entry in living}
        if len(set(places.values())) < len(places):
            raise Violation(f"P1: two members of one place: {places}")
        born = [key for key in places if key in step.after and step.before[key] is None]
        if born and not self._record.forgetful and max(places, key=places.__getitem__) not in born:
            raise Violation(f"P1: {born} joined ahead of others: {places}")

    def _see_numbers(self, step: Applied, spec: str) -> None:
        old, new = data_of(step.before[spec]), data_of(step.after[spec])
        changed = old and any(old[what] != new.get(what) for what in ("runner", "backup"))
        there = [entry.key for entry in self._store.tree.list(f"{self._group}/members") if entry.key not in step.after]
        if changed and there and self._record.author != ADMINISTRATOR_NAME:
            raise Violation(f"P1: {self._record.author} has changed the numbers of the members {there}")
