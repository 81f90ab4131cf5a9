"""Whom one incarnation knows to be dead, since when, and what was told of the handovers that followed."""

from smoothcluster.clock import Clock
from smoothcluster.events import EventLog
from smoothcluster.handover import Move
from smoothcluster.model import Evidence
from smoothcluster.view import View


class Deaths:
    """Proofs of death as they came in, and the ``handover`` events of claims."""

    def __init__(self, clock: Clock, events: EventLog, name: str) -> None:
        self.known: dict[str, Evidence] = {}
        """Incarnations proved dead."""
        self._clock, self._events, self._name = clock, events, name
        self._found: dict[str, tuple[float, float]] = {}
        self._resuming: dict[int, tuple[dict[str, object], float]] = {}

    def proved(self, incarnation: str, after: float) -> None:
        """Its process is dead, as was known *after* seconds of looking into it."""
        self.known[incarnation] = Evidence.PROCESS_GONE
        self._found.setdefault(incarnation, (self._clock.monotonic(), after))

    def since(self, incarnation: str) -> float:
        """When, on our clock, the proof came."""
        return self._found[incarnation][0]

    def tell(self, move: Move, view: View) -> None:
        """Note what *move*, a claim decided on *view*, has brought about."""
        now = self._clock.monotonic()
        found, after = self._found.get(move.former or "", (now, None))
        former = _name_of(move, view)
        event = self._note(move, "claim" if former is None else "handover", former, self._name)
        event["detected_ms"] = None if after is None else round(after * 1000, 3)
        event["claimed_ms"] = round((now - found) * 1000, 3)
        self._resuming.update(dict.fromkeys(move.shards, (event, found)))

    def tell_gift(self, move: Move) -> None:
        """Note that we have handed shards over to balance the group."""
        self._note(move, "handover", self._name, next(iter(move.shards.values())).name)

    def _note(self, move: Move, kind: str, former: str | None, heir: str | None) -> dict[str, object]:
        chunks = [chunk for shard in move.shards.values() for chunk in shard.open.values()]
        return self._events.add(
            kind,
            shards=sorted(move.shards),
            **{"from": former, "to": heir},
            evidence=str(move.evidence),
            epochs={str(number): shard.epoch for number, shard in sorted(move.shards.items())},
            detected_ms=None,
            claimed_ms=None,
            resumed_ms=None,
            tasks_resumed=sum(chunk.size - chunk.closed.bit_count() for chunk in chunks),
        )

    def resumed(self, shard: int) -> None:
        """The first tasks of a shard are on their way to the workers; told if it was taken over just now."""
        event, found = self._resuming.pop(shard, (None, 0.0))
        if event is not None and event["resumed_ms"] is None:
            event["resumed_ms"] = round((self._clock.monotonic() - found) * 1000, 3)


def _name_of(move: Move, view: View) -> str | None:
    """Whose shards they were; one whose lease has run out is no member any more, but they still say so."""
    if move.former is not None and move.former in view.members:
        return view.members[move.former].record.name
    read = view.shards[min(move.shards)] if move.shards else None
    return read.record.name if read is not None else None
