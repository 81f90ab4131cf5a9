"""Whom one incarnation knows to be dead, since when, and what was told of the handovers that followed."""

from collections.abc import Mapping, Sequence

from smoothcluster.clock import Clock
from smoothcluster.group.events import EventLog
from smoothcluster.group.handover import Move
from smoothcluster.group.view import View
from smoothcluster.model import Evidence


class TakeoverLog:
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
        """Note what *move*, a claim decided on *view*, has brought about: one event for each former owner."""
        now = self._clock.monotonic()
        for (former, name), numbers in _by_owner(move, view).items():
            found, after = self._found.get(former or "", (now, None))
            kind = "claim" if name is None else "handover"
            event = self._note(kind, move, numbers, name, self._name, view.verdict(former) or Evidence.LEFT)
            event["detected_ms"] = None if after is None else round(after * 1000, 3)
            event["claimed_ms"] = round((now - found) * 1000, 3)
            self._resuming.update(dict.fromkeys(numbers, (event, found)))

    def tell_gift(self, move: Move) -> None:
        """Note that we have handed shards over to balance the group."""
        heir = next(iter(move.shards.values())).name
        self._note("handover", move, sorted(move.shards), self._name, heir, Evidence.LEFT)

    def _note(
        self, kind: str, move: Move, numbers: Sequence[int], former: str | None, heir: str | None, evidence: Evidence
    ) -> dict[str, object]:
        shards = {number: move.shards[number] for number in numbers}
        chunks = [chunk for shard in shards.values() for chunk in shard.open.values()]
        return self._events.add(
            kind,
            shards=list(numbers),
            **{"from": former, "to": heir},
            evidence=str(evidence),
            epochs={str(number): shard.epoch for number, shard in shards.items()},
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


def _by_owner(move: Move, view: View) -> Mapping[tuple[str | None, str | None], list[int]]:
    """The shards that were taken, by whose they were: incarnation, and name. The seat's holder may have had none."""
    groups: dict[tuple[str | None, str | None], list[int]] = {}
    for number in sorted(move.shards):
        read = view.shards[number]
        assert read is not None, "garbage is never claimed"
        owner = move.former[number]
        groups.setdefault((owner, _name_of(owner, view) or read.record.name), []).append(number)
    if move.holder is not None and move.holder not in {owner for owner, _ in groups}:
        groups[move.holder, _name_of(move.holder, view)] = []
    return groups


def _name_of(incarnation: str | None, view: View) -> str | None:
    """What it is called, if it is still a member. One that is not may have left its name in its shards."""
    read = view.members.get(incarnation) if incarnation is not None else None
    return read.record.name if read is not None else None
