"""Injects faults into a simulated world; the seed decides the faults, the times and the victims."""

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

from smoothcluster.memory import Past
from smoothcluster.testing.simulate.processes import (
    CANCEL_FAULT,
    DELETE_FAULT,
    LEASE_TTL_SECONDS,
    MISSED_WAKEUPS_FAULT,
    SimAdmin,
    SimClient,
    SimEnder,
    SimMember,
    SimProcess,
)

if TYPE_CHECKING:
    from smoothcluster.testing.simulate.simulation import World

FAULTS = (
    "kill",
    "pause",
    "partition",
    "drop",
    "expire",
    "restart",
    "leave",
    "outage",
    "slander",
    "respec",
    "reap",
)  # name: exported by smoothcluster.testing.simulate
"""The kinds of faults.

A process dies, for some time or for good; stops and goes on; is cut off; loses acknowledgements; loses its lease;
dies and is started again at once, under the same name; leaves. The store is unreachable for all. A living member is
suspected dead. An administrator changes the number of Runners. Somebody kills a member's child."""


ROLLBACK_FAULT = "forget"
"""A rollback of the store, as when a replica takes over: acknowledged commits are lost.

This fault is not among the default faults: after a rollback starts cannot be counted, and clients have to submit
again."""

KNOWN_FAULTS = (*FAULTS, ROLLBACK_FAULT, MISSED_WAKEUPS_FAULT, CANCEL_FAULT, DELETE_FAULT)


class Trouble:
    """Chooses and injects the faults."""

    def __init__(self, world: "World") -> None:
        self.done: Counter[str] = Counter()
        """The number of faults injected, by kind."""
        self._world = world
        self._scheduler, self._random = world.scheduler, world.random
        self._acts = {
            "kill": self._kill,
            "pause": self._pause,
            "partition": self._partition,
            "drop": self._drop,
            "expire": self._expire,
            "restart": self._restart,
            "leave": self._leave,
            "outage": self._outage,
            "slander": self._slander,
            "reap": self._reap,
            "respec": self._respec,
            ROLLBACK_FAULT: self._forget,
            MISSED_WAKEUPS_FAULT: self._deafen,
            CANCEL_FAULT: self._cancel,
            DELETE_FAULT: self._delete,
        }
        self._forgetting = False

    def begin(self) -> None:
        """Begin to inject faults now and then, while the world is troubled."""
        if self._world.weather.faults:
            self._scheduler.at(self._random.uniform(0.0, 0.6), self._next)

    def _next(self) -> None:
        if not self._world.troubled:
            return
        victim = self._pick()
        if victim is not None:
            self._strike(victim)
        self._scheduler.at(self._random.choice((0.01, 0.2, 0.6, 2.0)) * self._random.random(), self._next)

    def ambush(self, victim: SimMember, within: float) -> None:
        """Now and then, inject a fault while a message of *victim* is on the way."""
        if self._world.troubled and self._world.weather.faults and self._random.random() < 0.1:
            self._scheduler.at(within * self._random.random(), lambda: self._strike(victim))

    def _strike(self, victim: SimMember) -> None:
        if victim.alive and self._world.troubled:  # The end of the faults may have come since `ambush`.
            fault = self._random.choice(self._world.weather.faults)
            self.done[fault] += 1
            self._acts[fault](victim)

    def _pick(self) -> SimMember | None:
        living = [member for member in self._world.members.values() if member.alive]
        return self._random.choice(living) if living else None

    def _client_instead(self, member: SimMember) -> SimProcess:
        """Return *member*, or now and then a living client instead."""
        both: list[SimProcess] = [*self._world.clients.values(), *self._world.enders.values()]
        clients = [client for client in both if client.alive]
        return self._random.choice(clients) if clients and self._random.random() < 0.2 else member

    # Deaths

    def _kill(self, member: SimMember) -> None:
        victim = self._client_instead(member)
        self._die(victim)
        if isinstance(victim, SimClient):
            self._scheduler.at(self._random.uniform(0.0, 3.0), lambda: self._world.submit(victim.job, victim.tasks))
        elif isinstance(victim, SimEnder):
            again = partial(self._world.end_job, victim.verb, victim.job)
            self._scheduler.at(self._random.uniform(0.0, 3.0), again)
        elif self._random.random() < 0.7:
            self._again(member.name, self._random.choice((0.5, 4.0)))

    def _restart(self, member: SimMember) -> None:
        self._die(member)
        self._again(member.name, 0.01)

    def _die(self, victim: SimProcess) -> None:
        self._world.note(f"kill {victim.name}{f' ({victim.incarnation})' if isinstance(victim, SimMember) else ''}")
        victim.kill()

    def _again(self, name: str, within: float) -> None:
        self._scheduler.at(within * self._random.random(), lambda: self._start_again(name))

    def _start_again(self, name: str) -> None:
        if not self._world.members[name].alive:
            self._world.start(name)

    def start_again(self, name: str) -> None:
        """A process has died of a task; its supervisor starts the process again."""
        self._again(name, self._random.choice((0.01, 4.0)))

    def _reap(self, member: SimMember) -> None:
        """Kill a child of *member* once, or several times: a killed task runs again a second later."""
        for _ in range(self._random.choice((1, 1, 6))):
            self._scheduler.at(4.0 * self._random.random(), lambda: self._kill_child(member))

    def _kill_child(self, member: SimMember) -> None:
        if member.alive and member.children.kill_one():
            self._world.note(f"kill a child of {member.name}")

    def _leave(self, member: SimMember) -> None:
        self._world.note(f"ask {member.name} to leave")
        member.loop.inbox.ask_to_leave()

    # Pauses and losses

    def _pause(self, member: SimMember) -> None:
        victim = self._client_instead(member)
        if victim.process.paused:
            return
        seconds = self._a_while()
        self._world.note(f"pause {victim.name} for {seconds:.3f}")
        self._scheduler.stop(victim.process)
        self._scheduler.at(seconds, lambda: self.go_on(victim))

    def _a_while(self) -> float:
        """Draw a number of seconds: few, many, or just enough for a lease to run out."""
        least, most = self._random.choice(
            ((0.0, 0.1), (0.0, 1.0), (0.0, 6.0), (LEASE_TTL_SECONDS, 1.3 * LEASE_TTL_SECONDS))
        )
        return self._random.uniform(least, most)

    def go_on(self, victim: SimProcess) -> None:
        """SIGCONT."""
        if victim.process.paused:
            self._world.note(f"go on {victim.name}")
            self._scheduler.go_on(victim.process)

    def _partition(self, member: SimMember) -> None:
        self._cut([member])

    def _outage(self, _: SimMember) -> None:
        everybody: list[SimProcess] = [*self._world.members.values(), *self._world.clients.values()]
        self._cut([each for each in everybody if each.alive])

    def _cut(self, victims: list[SimProcess]) -> None:
        seconds = self._a_while()
        self._world.note(f"cut off {' '.join(victim.name for victim in victims)} for {seconds:.3f}")
        for victim in victims:
            victim.backend.cut = True
            self._scheduler.at(seconds, victim.backend.mend)

    def _drop(self, member: SimMember) -> None:
        self._world.note(f"drop acknowledgements of {member.name}")
        member.backend.drop = 0.5
        self._scheduler.at(self._random.random(), lambda: setattr(member.backend, "drop", 0.0))

    def _deafen(self, member: SimMember) -> None:
        seconds = self._a_while()
        self._world.note(f"{member.name} misses wake-ups for {seconds:.3f}")
        member.backend.deaf = True
        self._scheduler.at(seconds, lambda: setattr(member.backend, "deaf", False))

    # Changes

    def _respec(self, _: SimMember) -> None:
        runner = self._random.randint(1, self._world.weather.members)
        self._world.note(f"change runner to {runner}")
        SimAdmin(self._world, runner, 0.3 if "drop" in self._world.weather.faults else 0.0)

    def _cancel(self, _: SimMember) -> None:
        self._end_job(CANCEL_FAULT)

    def _delete(self, _: SimMember) -> None:
        self._end_job(DELETE_FAULT)

    def _end_job(self, verb: str) -> None:
        jobs = [job for job in self._world.clients if job not in self._world.enders]
        if jobs:
            self._world.end_job(verb, self._random.choice(jobs))

    # Lies

    def _expire(self, member: SimMember) -> None:
        session = member.loop.session
        if session is not None:
            self._world.note(f"expire the lease of {member.name}")
            self._world.record.robbed.add(member.incarnation)
            self._world.store.end(session.lease.id)

    def _slander(self, member: SimMember) -> None:
        believer = self._pick()
        if believer is not None and believer is not member and member.incarnation:
            self._world.note(f"tell {believer.name} that {member.name} ({member.incarnation}) is dead")
            self._world.record.robbed.add(member.incarnation)
            self._world.record.given_up.setdefault(member.incarnation, self._scheduler.now)
            believer.loop.inbox.proved_gone(member.incarnation, 0.001)

    # Losses of the store itself

    def _forget(self, _: SimMember) -> None:
        if not self._forgetting:
            self._forgetting = True
            past = self._world.store.past(), self._world.record.past()
            self._scheduler.at(self._random.choice((0.01, 0.1, 1.0)) * self._random.random(), lambda: self._back(*past))

    def _back(self, past: Past, known: tuple[object, ...]) -> None:
        self._forgetting = False
        if not self._world.troubled:
            return
        self._world.note("the store forgets")
        self._world.record.go_back(known)
        self._world.store.go_back(past)
        for job, client in list(self._world.clients.items()):
            # No client can know the tasks lost with the rollback, so every client submits again.
            if client.alive:
                client.kill()
            else:
                self._world.jobs_running += 1
            self._world.submit(job, client.tasks)
