"""Events as they come: each read asks for the next event of each member, not for all of them again."""

from collections.abc import Mapping
from typing import final

from smoothcluster.backend import CoordinationBackend, Entry
from smoothcluster.events import RING
from smoothcluster.records import GarbageError, Keys, last_part, load

Event = Mapping[str, object]


@final
class Tail:
    """The events of a group, or of one member of it, each returned once."""

    def __init__(self, backend: CoordinationBackend, group: str, member: str | None = None) -> None:
        self._backend, self._keys, self._member = backend, Keys(group), member
        self._next: dict[str, int] = {}
        """For each member's ring, the number that its next event will have."""

    def new(self) -> list[Event]:
        """What was noted since the last call, oldest first by the wall clocks of those who noted it.

        The first call returns all there is. What was written over before it was read is missing.
        """
        events = [event for directory in self._rings() for event in self._read(directory)]
        return sorted(events, key=lambda event: (_number(event, "at"), _number(event, "n")))

    def _rings(self) -> list[str]:
        return [self._keys.events(self._member)] if self._member else self._backend.keys(self._keys.all_events)

    def _read(self, directory: str) -> list[Event]:
        if directory not in self._next:
            return self._reread(directory, 0)
        events: list[Event] = []
        while True:
            due = self._next[directory]
            event = _event(self._backend.get(f"{directory}/{due % RING}"))
            if event is None or _number(event, "n") < due:
                return events
            if _number(event, "n") > due:  # The ring has gone round since.
                return events + self._reread(directory, due)
            events.append(event)
            self._next[directory] = due + 1

    def _reread(self, directory: str, due: int) -> list[Event]:
        """The events of a ring from number *due* on, those that are still there."""
        found = (_event(entry) for entry in self._backend.list(directory))
        events = [event for event in found if event is not None and _number(event, "n") >= due]
        self._next[directory] = max((int(_number(event, "n")) + 1 for event in events), default=due)
        return events


def _event(entry: Entry | None) -> Event | None:
    try:
        return None if entry is None else load(entry.value)
    except GarbageError as error:
        assert entry is not None
        return {"at": 0, "kind": "garbage", "key": entry.key, "what": str(error), "n": -1, "slot": last_part(entry.key)}


def _number(event: Event, name: str) -> float:
    value = event.get(name)
    return value if isinstance(value, int | float) else -1.0
