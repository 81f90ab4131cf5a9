"""The event log of a group, for people and scripts: a bounded ring of events for each member.

Events explain; no decision depends on them. A member writes events when there is time, so the last events of a
killed process are missing.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import cast

from smoothcluster.backend import Change, Create, Delete, Refused, Update, commit_size
from smoothcluster.group.store import GroupStore
from smoothcluster.records.codec import GarbageError, dump, load
from smoothcluster.records.keys import last_part

EVENTS_KEPT_PER_MEMBER = 200
"""How many events are kept for each member."""


class EventLog:
    """The ring of events of a member."""

    def __init__(self, store: GroupStore, member: str) -> None:
        self._backend, self._directory, self._clock = store.backend, store.keys.events(member), store.clock
        self._member = member
        self._waiting: deque[dict[str, object]] = deque(maxlen=EVENTS_KEPT_PER_MEMBER)
        self._garbage: set[str] = set()
        self._slots: set[int] | None = None
        self._next = 0

    def add(self, kind: str, **details: object) -> dict[str, object]:
        """Add an event to the queue for `flush`. Until then the caller may add to the returned event."""
        event = self.draft(kind, **details)
        self.put(event)
        return event

    def draft(self, kind: str, **details: object) -> dict[str, object]:
        """Return an event of this moment for `put`."""
        return {"at": round(self._clock.wall(), 6), "kind": kind, "member": self._member, **details}

    def put(self, event: dict[str, object]) -> None:
        """Add a drafted event to the queue for `flush`."""
        self._waiting.append(event)

    def garbage(self, key: str, what: str) -> None:
        """Report garbage under *key*, once for each key."""
        if key not in self._garbage:
            self._garbage.add(key)
            self.add("garbage", key=key, what=what)

    def flush(self) -> None:
        """Write the queued events. After a BackendError, the next call goes on where this call stopped."""
        while self._waiting:
            if self._slots is None:
                self._find_slots()
            assert self._slots is not None
            slot = self._next % EVENTS_KEPT_PER_MEMBER
            key = f"{self._directory}/{slot}"
            value = _dump_within(self._most_bytes(key), self._waiting[0] | {"n": self._next})
            change: Change = Update(key, value) if slot in self._slots else Create(key, value)
            if isinstance(self._backend.commit([], [change]), Refused):
                self._slots = None  # A cleanup removed the slot, or the last write did arrive.
                continue
            self._slots.add(slot)
            self._next += 1
            self._waiting.popleft()

    def _most_bytes(self, key: str) -> int:
        limits = self._backend.guarantees
        return min(limits.largest_value, limits.largest_commit - commit_size([], [Delete(key)]).bytes)

    def _find_slots(self) -> None:
        """Find the slots in use, to go on behind the events of earlier incarnations with the same name."""
        self._slots = set()
        last = -1
        for entry in self._backend.list(self._directory):
            name = last_part(entry.key)
            if name.isdecimal():
                self._slots.add(int(name))
            try:
                last = max(last, int(sortable_number(load(entry.value).get("n"))))
            except GarbageError:
                continue  # The ring overwrites this slot in due turn.
        self._next = last + 1


def _dump_within(most: int, event: dict[str, object]) -> bytes:
    """Encode *event* in *most* bytes: the longest fields are halved until the event fits, and named in ``cut``."""
    cut: dict[str, None] = {}
    while len(value := dump(event)) > most:
        longest = max(event, key=lambda name: len(dump(event[name])) if name != "cut" else 0)
        event = event | {longest: _half(event[longest])}
        cut[longest] = None
        event["cut"] = list(cut)
    return value


def _half(value: object) -> object:
    """The first half of a list, an object or a text; None for anything else."""
    if isinstance(value, Mapping):
        pairs = list(cast("Mapping[object, object]", value).items())
        return dict(pairs[: len(pairs) // 2])
    if isinstance(value, list | tuple | str):
        items = cast("Sequence[object]", value)
        return items[: len(items) // 2]
    return None


def read_events(store: GroupStore) -> list[Mapping[str, object]]:
    """The events of all members, oldest first by the wall clocks of the writers."""
    events: list[Mapping[str, object]] = []
    for directory in store.backend.keys(store.keys.all_events):
        for entry in store.backend.list(directory):
            try:
                event = load(entry.value)
                if not isinstance(event.get("kind"), str):
                    raise GarbageError("the event has no kind")
                events.append(event)
            except GarbageError as error:
                events.append({"at": 0, "kind": "garbage", "key": entry.key, "what": str(error)})
    return sorted(events, key=lambda event: (sortable_number(event.get("at")), sortable_number(event.get("n"))))


def sortable_number(value: object) -> float:
    """A time or number of an event, which may be garbage; -1 for a number that is infinite or too large for a float."""
    return value if isinstance(value, int | float) and abs(value) < 2**53 else -1.0
