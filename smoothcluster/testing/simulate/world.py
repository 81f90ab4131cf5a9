"""One schedule: members, clients and faults, all decided by a seed, judged by the independent record."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from smoothcluster.cluster import Cluster
from smoothcluster.errors import BackendError, JobClosedError, NameInUseError
from smoothcluster.incarnation import Settings, Surroundings
from smoothcluster.joining import Wanted
from smoothcluster.member import MemberLoop
from smoothcluster.memory import WEAKEST, MemoryStore
from smoothcluster.model import Task
from smoothcluster.peers import Peer
from smoothcluster.pool import Run
from smoothcluster.session import Session
from smoothcluster.testing.simulate.network import SimBackend
from smoothcluster.testing.simulate.pool import SimPool
from smoothcluster.testing.simulate.record import IndependentRecord, Violation
from smoothcluster.testing.simulate.scheduler import Killed, Process, Scheduler, SimClock

FAULTS = ("kill", "pause", "partition", "drop", "expire", "restart", "leave", "outage")
"""What may go wrong: a process dies; stops and goes on; is cut off; loses acknowledgements; loses
its lease; is started again under its name; leaves; the store is away from everybody."""

GROUP = "g"
TTL = 2.0
TROUBLE = 12.0
"""Seconds during which faults happen."""
PEACE = 60.0
"""Seconds after the last fault within which everything must have ended well."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is simulated."""

    members: int = 5
    runner: int = 3
    faults: tuple[str, ...] = FAULTS
    shards: int = 8
    concurrency: int = 3
    tasks: int = 20
    jobs: int = 3


class SimMember:
    """A member's process, and all it has of the world."""

    def __init__(self, world: "World", name: str) -> None:
        self.world, self.name = world, name
        self.process = Process(name)
        scheduler = world.scheduler
        self.clock = SimClock(scheduler)
        self.backend = SimBackend(scheduler, self.process, world.store, world.set_author)
        self.incarnation = ""
        self.greeted: dict[str, str] = {}
        """Incarnations whose process would be known dead if it died now, and their members."""
        scenario = world.scenario
        settings = Settings(
            GROUP, Wanted(name, scenario.runner, scenario.members - scenario.runner, scenario.shards),
            scenario.concurrency, TTL, 1, 0.1, 1.0,
        )  # fmt: skip
        around = Surroundings(
            clock=self.clock,
            new_id=world.new_id,
            host="simulated",
            pid=1,
            address=("127.0.0.1", 1),
            announce=self._announce,
            watch_peers=self._watch_peers,
            make_pool=self._make_pool,
            keep_alive=lambda session: scheduler.spawn(self.process, session.run),
        )
        self.loop = MemberLoop(self.backend, settings, around)
        scheduler.spawn(self.process, self._main)

    def _announce(self, group: str, member: str, incarnation: str) -> None:
        self.incarnation = incarnation

    def _watch_peers(self, peers: set[Peer]) -> None:
        wanted = {peer.incarnation: peer.member for peer in peers}
        self.greeted = {name: member for name, member in self.greeted.items() if name in wanted}
        self.world.scheduler.at(0.001, lambda: self._greet(wanted), self.process)

    def _greet(self, wanted: dict[str, str]) -> None:
        living = {member.incarnation for member in self.world.members.values() if not member.process.dead}
        self.greeted |= {name: member for name, member in wanted.items() if name in living}

    def _make_pool(self, deliver: Callable[[], None], can_start: Callable[[Run], bool]) -> SimPool:
        concurrency = self.world.scenario.concurrency
        return SimPool(self.world.scheduler, self.process, concurrency, deliver, can_start, self._started)

    def _started(self, run: Run) -> None:
        self.world.record.started(self.incarnation, run.task.id)

    def _main(self) -> None:
        while self.loop.life is None:
            try:
                if self.loop.try_join():
                    self.loop.settle()
            except (BackendError, NameInUseError):
                self.clock.sleep(0.1)
        self.loop.run()
        self.world.gone(self)

    def kill(self) -> None:
        scheduler = self.world.scheduler
        scheduler.kill(self.process)
        for other in self.world.members.values():
            if self.incarnation in other.greeted and not other.backend.cut:
                delay = scheduler.random.uniform(0.0005, 0.005)
                tell = other.loop.proved_gone
                scheduler.at(delay, lambda tell=tell: tell(self.incarnation, 0.001), other.process)
        self.backend.close()


class World:
    """One store, one group, one seed."""

    def __init__(self, seed: int, scenario: Scenario) -> None:
        self.seed, self.scenario = seed, scenario
        self.scheduler = Scheduler(seed)
        self.random = self.scheduler.random
        guarantees = replace(WEAKEST, largest_commit=512 * 1024)
        self.store = MemoryStore(clock=SimClock(self.scheduler), guarantees=guarantees)
        self.record = IndependentRecord(self.store, GROUP)
        self.members: dict[str, SimMember] = {}
        self.trace: list[str] = []
        self.jobs_running = 0
        self._ids = 0

    def new_id(self) -> str:
        self._ids += 1
        return f"id{self._ids:06d}"

    def set_author(self, name: str) -> None:
        self.record.author = name

    def note(self, what: str) -> None:
        self.trace.append(f"{self.scheduler.now:9.4f}  {what}")

    # The schedule

    def run(self) -> None:
        """Play the schedule; raise Violation if a promise is broken."""
        for number in range(self.scenario.members):
            self.scheduler.at(self.random.uniform(0, 1.0), lambda n=number: self.start(f"m{n}"))
        for number in range(self.scenario.jobs):
            self.scheduler.at(self.random.uniform(0, TROUBLE * 0.8), lambda n=number: self._submit(f"j{n}"))
        self._keep_leases()
        self.scheduler.at(self.random.uniform(0.2, 3.0), self._trouble)
        self._play(until=TROUBLE, enough=lambda: False)
        self._make_peace()
        self._play(until=self.scheduler.now + PEACE, enough=self._converged)
        if not self._converged():
            raise Violation("P7: " + self._what_is_missing())
        self.record.check_end()

    def _play(self, until: float, enough: Callable[[], bool]) -> None:
        check = self.scheduler.now
        steps = 0
        while self.scheduler.now < until and self.scheduler.step():
            steps += 1
            if self.scheduler.now >= check:
                if enough():
                    return
                check, steps = self.scheduler.now + 0.25, 0
            if steps > 100_000:
                raise Violation("P7: somebody is busy without end")

    def close(self) -> None:
        """End all that still lives, so that nothing of this world is left."""
        for member in list(self.members.values()):
            if not member.process.dead:
                self.scheduler.kill(member.process)

    def _keep_leases(self) -> None:
        self.store.expire()
        self.scheduler.at(0.05, self._keep_leases)

    def start(self, name: str) -> None:
        self.note(f"start {name}")
        self.members[name] = SimMember(self, name)

    def gone(self, member: SimMember) -> None:
        """A member has left by itself."""
        self.note(f"{member.name} has left")
        member.process.dead = True
        member.backend.close()

    def _submit(self, job: str) -> None:
        process = Process(f"client-{job}")
        backend = SimBackend(self.scheduler, process, self.store, self.set_author)
        backend.drop = 0.1 if "drop" in self.scenario.faults else 0.0
        cluster = Cluster(backend, GROUP, clock=SimClock(self.scheduler), patience=1e9)
        tasks = [Task(id=f"{job}:{number}") for number in range(self.scenario.tasks)]

        def main() -> None:
            while cluster.absent():
                self.scheduler.pause(0.1)  # The first member says how many shards there are.
            self.record.expected.update((job, task.id) for task in tasks)
            handle = cluster.submit(tasks, job=job)
            self.note(f"{job} submitted")
            handle.wait()
            self.note(f"{job} finished")
            self.record.finished(job)
            self.jobs_running -= 1

        self.jobs_running += 1
        self.note(f"submit {job}")
        self.scheduler.spawn(process, main)

    # Faults

    def _trouble(self) -> None:
        if self.scheduler.now >= TROUBLE:
            return
        fault = self.random.choice(self.scenario.faults)
        getattr(self, f"_{fault}")()
        self.scheduler.at(self.random.choice((0.01, 0.3, 1.0, 3.0)) * self.random.random(), self._trouble)

    def _pick(self) -> SimMember | None:
        living = [member for member in self.members.values() if not member.process.dead]
        return self.random.choice(living) if living else None

    def _kill(self) -> None:
        member = self._pick()
        if member is not None:
            self.note(f"kill {member.name} ({member.incarnation})")
            member.kill()
            if self.random.random() < 0.7:
                self._again(member.name)

    _restart = _kill

    def _again(self, name: str) -> None:
        self.scheduler.at(self.random.choice((0.0, 0.5, 4.0)) * self.random.random(), lambda: self._start_again(name))

    def _start_again(self, name: str) -> None:
        if self.members[name].process.dead:
            self.start(name)

    def _pause(self) -> None:
        member = self._pick()
        if member is not None and not member.process.paused:
            seconds = self.random.choice((0.1, 1.0, 6.0)) * self.random.random()
            self.note(f"pause {member.name} for {seconds:.3f}")
            self.scheduler.stop(member.process)
            self.scheduler.at(seconds, lambda: self._go_on(member))

    def _go_on(self, member: SimMember) -> None:
        if member.process.paused:
            self.note(f"go on {member.name}")
            self.scheduler.go_on(member.process)

    def _partition(self) -> None:
        member = self._pick()
        if member is not None:
            self._cut([member])

    def _outage(self) -> None:
        self._cut([member for member in self.members.values() if not member.process.dead])

    def _cut(self, members: list[SimMember]) -> None:
        seconds = self.random.choice((0.1, 1.0, 5.0)) * self.random.random()
        self.note(f"cut off {' '.join(member.name for member in members)} for {seconds:.3f}")
        for member in members:
            member.backend.cut = True
            self.scheduler.at(seconds, member.backend.mend)

    def _drop(self) -> None:
        member = self._pick()
        if member is not None:
            self.note(f"drop acknowledgements of {member.name}")
            member.backend.drop = 0.5
            self.scheduler.at(self.random.random(), lambda: setattr(member.backend, "drop", 0.0))

    def _expire(self) -> None:
        member = self._pick()
        session = member.loop.session if member is not None else None
        if member is not None and session is not None:
            self.note(f"expire the lease of {member.name}")
            self.record.robbed.add(member.incarnation)
            self.store.end(session.lease.id)

    def _leave(self) -> None:
        member = self._pick()
        if member is not None:
            self.note(f"ask {member.name} to leave")
            member.loop.ask_to_leave()
            self._again(member.name)

    # The end

    def _make_peace(self) -> None:
        self.note("peace")
        for member in self.members.values():
            self._go_on(member)
            member.backend.mend()
            member.backend.drop = 0.0
        for number in range(self.scenario.members):
            name = f"m{number}"
            if name not in self.members or self.members[name].process.dead:
                self.start(name)
        # Two late joiners stand for those whose names the last fault left in use.
        self.scheduler.at(2 * TTL, self._start_missing)

    def _start_missing(self) -> None:
        for name, member in list(self.members.items()):
            if member.process.dead:
                self.start(name)

    def _converged(self) -> bool:
        return not self.record.unfinished() and not self.jobs_running and not self._what_is_missing()

    def _what_is_missing(self) -> str:
        """What should be true once faults have stopped, and is not; empty if all is."""
        unfinished = sorted(self.record.unfinished())
        if unfinished:
            return f"{len(unfinished)} tasks have no outcome, such as {unfinished[:3]}"
        if self.jobs_running:
            return "a client still waits for a job that has finished"
        owners = self._owners()
        missing = [number for number, owner in enumerate(owners) if owner is None]
        if missing:
            return f"shards {missing} are owned by nobody who may work"
        counts = [owners.count(owner) for owner in set(owners)]
        able = min(self.scenario.runner, self.scenario.members)
        if len(counts) != min(able, len(owners)) or max(counts) - min(counts) > 1:
            return f"{len(counts)} of {able} Runners share the shards as {sorted(counts)}"
        return ""

    def _owners(self) -> list[str | None]:
        from smoothcluster.testing.simulate.record import _data

        entries = self.store.tree.entries
        seated = {_data(entries.get(f"{GROUP}/seats/{n}")).get("holder") for n in range(self.scenario.runner)}
        able = {holder for holder in seated if f"{GROUP}/members/{holder}" in entries}
        owners = [_data(entries.get(f"{GROUP}/shards/{n}")).get("owner") for n in range(self.scenario.shards)]
        return [owner if owner in able else None for owner in owners]


def play(seed: int, scenario: Scenario) -> World:
    """Play one schedule; raise Violation, with the world as its `world`, if it breaks a promise."""
    world = World(seed, scenario)
    try:
        world.run()
    except BaseException as error:
        if isinstance(error, Killed):
            raise AssertionError("the scheduler let a kill escape") from error
        error.world = world  # type: ignore[attr-defined]  # for whoever prints it
        raise
    finally:
        world.close()
    return world
