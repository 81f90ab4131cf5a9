"""Log of takeovers: the members proved dead, the times of the proofs, and the events of the handovers that followed."""

from collections.abc import Mapping, Sequence

from smoothcluster.clock import Clock
from smoothcluster.group.events import EventLog
from smoothcluster.group.handover import Move
from smoothcluster.group.view import View
from smoothcluster.model import Evidence

LONGEST_HOLD_SECONDS = 5.0
"""Seconds that the event of a takeover waits for the first start of a task."""


class TakeoverLog:
    """The proofs of death that one incarnation has received, and the ``claim`` and ``handover`` events of its moves."""

    def __init__(self, clock: Clock, events: EventLog, name: str) -> None:
        self.known: dict[str, Evidence] = {}
        """Incarnations proved dead."""
        self._clock, self._events, self._name = clock, events, name
        self._found: dict[str, tuple[float, float]] = {}
        self._resuming: dict[int, tuple[dict[str, object], float]] = {}
        self._held: list[tuple[float, dict[str, object]]] = []
        """Events that wait for the first start of a task, each with the end of the wait."""

    def proved(self, incarnation: str, after: float) -> None:
        """Record the proof of death of *incarnation*, and the time.

        *after* is the number of seconds from the end of the connection to the proof. A second proof changes no time.
        """
        self.known[incarnation] = Evidence.PROCESS_GONE
        self._found.setdefault(incarnation, (self._clock.monotonic(), after))

    def since(self, incarnation: str) -> float:
        """Return the time of the proof on this process's clock. Raise KeyError without a proof."""
        return self._found[incarnation][0]

    def add_claim(self, move: Move, view: View) -> None:
        """Add an event for each former owner after the commit of *move*, a claim decided on *view*.

        The time of the first start is still missing. `resumed` adds this time, for which the event waits a little.
        """
        now = self._clock.monotonic()
        for (former, name), numbers in _by_owner(move, view).items():
            found, after = self._found.get(former or "", (now, None))
            kind = "claim" if name is None else "handover"
            event = self._note(kind, move, numbers, name, self._name, view.verdict(former) or Evidence.LEFT)
            event["detected_ms"] = None if after is None else round(after * 1000, 3)
            event["claimed_ms"] = round((now - found) * 1000, 3)
            self._resuming.update(dict.fromkeys(numbers, (event, found)))
            if event["tasks_resumed"]:
                self._held.append((now + LONGEST_HOLD_SECONDS, event))
            else:
                self._events.put(event)

    def add_transfer(self, move: Move) -> None:
        """Add the event of *move*, a committed transfer of own shards to another member."""
        successor = next(iter(move.shards.values())).name
        self._events.put(self._note("handover", move, sorted(move.shards), self._name, successor, Evidence.LEFT))

    def _note(
        self,
        kind: str,
        move: Move,
        numbers: Sequence[int],
        former: str | None,
        successor: str | None,
        evidence: Evidence,
    ) -> dict[str, object]:
        shards = {number: move.shards[number] for number in numbers}
        chunks = [chunk for shard in shards.values() for chunk in shard.open.values()]
        return self._events.draft(
            kind,
            shards=list(numbers),
            **{"from": former, "to": successor},
            evidence=str(evidence),
            epochs={str(number): shard.epoch for number, shard in shards.items()},
            detected_ms=None,
            claimed_ms=None,
            resumed_ms=None,
            tasks_resumed=sum(chunk.size - chunk.closed.bit_count() for chunk in chunks),
        )

    def resumed(self, shard: int) -> None:
        """Complete the event of a recent takeover of *shard*: tasks of the shard went to the pool.

        The workload calls this after each start. Only the first start after a takeover counts.
        """
        event, found = self._resuming.pop(shard, (None, 0.0))
        if event is not None and event["resumed_ms"] is None:
            event["resumed_ms"] = round((self._clock.monotonic() - found) * 1000, 3)

    def release(self, *, leaving: bool = False) -> None:
        """Hand the events to the log that need not wait any longer: tasks have started, or the wait is over."""
        now, held = self._clock.monotonic(), self._held
        self._held = []
        for until, event in held:
            if event["resumed_ms"] is not None or leaving or now >= until:
                self._events.put(event)
            else:
                self._held.append((until, event))

    def next_time(self) -> float | None:
        """Return the time at which to call `release` again; None if no event waits."""
        return min((until for until, _ in self._held), default=None)


def _by_owner(move: Move, view: View) -> Mapping[tuple[str | None, str | None], list[int]]:
    """Return the claimed shards by former owner, as incarnation and name.

    The former holder of the claimed seat is included, even if the claim took no shard of this holder.
    """
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
    """Return the name of a present member, else None. The shards of a former member may still contain the name."""
    read = view.members.get(incarnation) if incarnation is not None else None
    return read.record.name if read is not None else None
