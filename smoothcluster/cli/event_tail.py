"""Follow events: each read asks for the next event of each member, instead of listing all events again."""

from collections.abc import Mapping
from typing import final

from smoothcluster.backend import CoordinationBackend, Entry
from smoothcluster.group.events import EVENTS_KEPT_PER_MEMBER, sortable_number
from smoothcluster.records.codec import GarbageError, load
from smoothcluster.records.keys import Keys

Event = Mapping[str, object]


@final
class Tail:
    """The events of a group, or of a single member, each returned once."""

    def __init__(self, backend: CoordinationBackend, group: str, member: str | None = None) -> None:
        self._backend, self._keys, self._member = backend.for_group(group), Keys(group), member
        self._next: dict[str, int] = {}
        """The number of the next event, by the ring of events (a member's directory)."""

    def new(self) -> list[Event]:
        """Return the events since the last call, oldest first by the wall clocks of the members.

        The first call returns all events in the store. Events overwritten before this call are missing.
        """
        rings = [self._keys.events(self._member)] if self._member else self._backend.keys(self._keys.all_events)
        events = [event for directory in rings for event in self._read(directory)]
        return sorted(events, key=lambda event: (_at(event), _place(event)))

    def _read(self, directory: str) -> list[Event]:
        if directory not in self._next:
            return self._read_all(directory, -1)
        events: list[Event] = []
        while True:
            due = self._next[directory]
            event = _event(self._backend.get(f"{directory}/{due % EVENTS_KEPT_PER_MEMBER}"))
            if event is None or _place(event) < due:
                return events
            if _place(event) > due:  # The ring has wrapped around since the last read.
                return events + self._read_all(directory, due)
            events.append(event)
            self._next[directory] = due + 1

    def _read_all(self, directory: str, least: int) -> list[Event]:
        """Return the events of a ring from number *least* on. Garbage has the number -1."""
        found = (_event(entry) for entry in self._backend.list(directory))
        events = [event for event in found if event is not None and _place(event) >= least]
        self._next[directory] = max((_place(event) + 1 for event in events), default=max(least, 0))
        return events


def _event(entry: Entry | None) -> Event | None:
    if entry is None:
        return None
    try:
        return load(entry.value)
    except GarbageError as error:
        return {"at": 0, "kind": "garbage", "key": entry.key, "what": str(error)}


def _place(event: Event) -> int:
    return max(-1, int(sortable_number(event.get("n"))))


def _at(event: Event) -> float:
    return sortable_number(event.get("at"))
