"""One schedule: members, clients and faults, all decided by a seed, checked by the independent record."""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from math import inf

from smoothcluster.cluster import Cluster
from smoothcluster.memory import WEAKEST, MemoryBackend, MemoryStore
from smoothcluster.model import Task
from smoothcluster.testing.simulate.adoption_invariants import Adoptions
from smoothcluster.testing.simulate.faults import FAULTS, Trouble
from smoothcluster.testing.simulate.invariants import IndependentRecord, Violation, data_of
from smoothcluster.testing.simulate.join_invariants import Joins
from smoothcluster.testing.simulate.processes import GROUP_NAME, LEASE_TTL_SECONDS, SimClient, SimEnder, SimMember
from smoothcluster.testing.simulate.scenario import Jobs, draw
from smoothcluster.testing.simulate.scheduler import Killed, Scheduler, SimClock

RECOVERY_TIMEOUT_SECONDS = 120.0
"""Seconds without progress until the wait for recovery fails. Where the store is slow, each of the five deaths that
quarantine a task takes up to fifteen seconds."""

RECOVERY_SECONDS_PER_SHARD = 0.25
"""More seconds for each shard: claims and transfers take several commits where the shards are many."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """The parameters of a simulation."""

    members: int = 5
    runner: int = 3
    shape: str = "any"
    """Whether "some" members are Runners, or "all", or "any": a mix of both over the schedules."""
    faults: tuple[str, ...] = FAULTS
    shards: int = 8
    concurrency: int = 3
    tasks: int = 20
    jobs: int = 3
    max_attempts: int = 2


class World:
    """A simulated world: one store, one group, one seed."""

    def __init__(self, seed: int, scenario: Scenario) -> None:
        self.seed, self.scenario = seed, scenario
        self.scheduler = Scheduler(seed)
        self.random = self.scheduler.random
        self.weather = draw(self.random, scenario, seed)
        # Some stores accept small commits only: then moves and submits need several.
        most = self.random.choice((12, 24, 128))
        guarantees = self.weather.limits or replace(WEAKEST, largest_commit=512 * 1024, most_operations=most)
        self.store = MemoryStore(clock=SimClock(self.scheduler), guarantees=guarantees)
        self.record = IndependentRecord(self.store, GROUP_NAME, self.weather.isolation, self.weather.faults)
        self.joins = Joins(self.store, GROUP_NAME, self.record)
        self.adoptions = Adoptions(self.store, GROUP_NAME, lambda: self.scheduler.now, self.record)
        self.members: dict[str, SimMember] = {}
        self.clients: dict[str, SimClient] = {}
        self.enders: dict[str, SimEnder] = {}
        """The client that cancels or deletes a job, by job."""
        self.trace: list[str] = []
        self.hits = Counter[str]()
        """The number of random kills of children, by the task in the child."""
        self.jobs_running = 0
        self.troubled = True
        """Whether faults may happen now."""
        self.trouble = Trouble(self)
        self._ids = 0
        self._left, self._since = (0, 0), 0.0

    def new_id(self) -> str:
        self._ids += 1
        return f"id{self._ids:06d}"

    def set_author(self, name: str) -> None:
        self.record.author = name

    def note(self, what: str) -> None:
        """Add an event to the trace, with the time, for human readers."""
        self.trace.append(f"{self.scheduler.now:9.4f}  {what}")

    # The schedule

    def run(self) -> None:
        """Play the schedule; raise Violation if a promise is broken."""
        for number in range(self.weather.members):
            late = self.weather.late if number == self.weather.members - 1 else 0.0
            self.scheduler.at(late + self.random.uniform(0, 1.0), partial(self.start, f"m{number}"))
        self._keep_leases()
        for jobs in self.weather.jobs:
            self._storm(jobs)
        self.record.check_end()
        self._check_clients_view()

    def _storm(self, jobs: Jobs) -> None:
        """Let faults happen for a while, then check the recovery of the group."""
        seconds = self.weather.seconds
        self.jobs_running += len(jobs)
        for job, numbers in jobs.items():
            tasks = [Task(id=f"{job}:{number}") for number in numbers]
            self.scheduler.at(self.random.uniform(0, seconds), partial(self.submit, job, tasks))
        self.troubled = True
        self.trouble.begin()
        self._play(until=self.scheduler.now + seconds, enough=lambda: False)
        self.troubled = False
        # Cut-off or stopped processes may stay so for longer.
        self._play(until=self.scheduler.now + self.random.choice((0.0, 4.0)), enough=lambda: False)
        self._make_peace()
        self._play(until=inf, enough=self._gets_no_better)
        missing = self._what_is_missing()
        if missing:
            raise Violation("P7: " + missing)

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

    def _gets_no_better(self) -> bool:
        """Whether the group has recovered, or made no progress for too long."""
        left = (len(self.record.outcomes), self.jobs_running)
        if left != self._left:
            self._left, self._since = left, self.scheduler.now
        patience = RECOVERY_TIMEOUT_SECONDS + RECOVERY_SECONDS_PER_SHARD * self.weather.shards
        return self.scheduler.now > self._since + patience or not self._what_is_missing()

    def close(self) -> None:
        """Kill all living processes, to leave nothing of this world."""
        for each in [*self.members.values(), *self.clients.values(), *self.enders.values()]:
            if each.alive:
                self.scheduler.kill(each.process)

    def _keep_leases(self) -> None:
        self.store.expire()
        self.scheduler.at(0.05, self._keep_leases)

    def start(self, name: str) -> None:
        """Start a member's process; some wait between joining and working."""
        idle = 3 * LEASE_TTL_SECONDS * self.random.random() if self.troubled and self.random.random() < 0.1 else 0.0
        self.note(f"start {name}" + (f", idle for {idle:.3f}" if idle else ""))
        self.members[name] = SimMember(self, name, idle)

    def gone(self, member: SimMember) -> None:
        """Note the voluntary leave of a member; the member comes back before long."""
        self.note(f"{member.name} has left")
        member.process.dead = True
        member.backend.close()
        self.scheduler.at(self.random.choice((0.01, 4.0)) * self.random.random(), self._start_missing)

    def submit(self, job: str, tasks: list[Task]) -> None:
        """Start a client's process, which submits *job*."""
        self.note(f"submit {job}")
        drop = 0.1 if "drop" in self.weather.faults else 0.0
        self.clients[job] = SimClient(self, job, tasks, drop, again=job in self.clients)

    def end_job(self, verb: str, job: str) -> None:
        """Start a client that cancels or deletes *job*."""
        self.note(f"{verb} {job}")
        self.enders[job] = SimEnder(self, verb, job, 0.3 if "drop" in self.weather.faults else 0.0)

    # The end

    def _make_peace(self) -> None:
        self.note("peace")
        for each in [*self.members.values(), *self.clients.values(), *self.enders.values()]:
            self.trouble.go_on(each)
            each.backend.mend()
        for member in self.members.values():
            member.backend.drop = 0.0
        self._start_missing()

    def _start_missing(self) -> None:
        for number in range(self.weather.members):
            name = f"m{number}"
            if name not in self.members or not self.members[name].alive:
                self.start(name)

    def _what_is_missing(self) -> str:
        """The recovery still missing after the faults have stopped; empty if there is nothing missing."""
        unfinished = sorted(self.record.unfinished())
        if unfinished:
            return f"{len(unfinished)} tasks have no outcome, such as {unfinished[:3]}"
        if self.jobs_running:
            return "a client still waits for a job that has finished"
        ending = [ender.name for ender in self.enders.values() if not ender.done]
        return f"{ending} have not ended" if ending else self._what_is_misplaced()

    def _what_is_misplaced(self) -> str:
        """The shards without the right owner; empty if every shard has the right owner."""
        able, owners = self._able(), self._owners()
        if len(able) != min(self._runner, self.weather.members):
            return f"{len(able)} are Runners of {self._runner}"
        room = {name: self._capacity(name) for name in able}
        missing = [number for number, owner in enumerate(owners) if owner is None]
        if len(missing) != max(0, len(owners) - sum(room.values())):
            return f"shards {missing} are owned by nobody who may work"
        counts = {name: owners.count(name) for name in able}
        if any(max(counts.values()) - count > 1 and count < room[name] for name, count in counts.items()):
            return f"the Runners share the shards as {sorted(counts.values())}"
        return ""

    def _capacity(self, incarnation: str) -> int:
        """The capacity of a member, by the store; all shards, if the record sets no limit."""
        capacity = data_of(self.store.tree.entries.get(f"{GROUP_NAME}/members/{incarnation}"))["capacity"]
        return self.weather.shards if capacity is None else min(capacity, self.weather.shards)

    @property
    def _runner(self) -> int:
        """The wanted number of Runners, by the store."""
        return data_of(self.store.tree.entries.get(f"{GROUP_NAME}/spec")).get("runner") or self.weather.runner

    def _able(self) -> set[str]:
        """The incarnations entitled to own shards."""
        entries = self.store.tree.entries
        if self.weather.backup is None:
            members = self.store.tree.list(f"{GROUP_NAME}/members")
            oldest = sorted(members, key=lambda entry: (data_of(entry)["join"], entry.created))[: self._runner]
            return {data_of(entry)["incarnation"] for entry in oldest}
        seated = [data_of(entries.get(f"{GROUP_NAME}/seats/{n}")).get("holder") for n in range(self._runner)]
        return {str(holder) for holder in seated if f"{GROUP_NAME}/members/{holder}" in entries}

    def _owners(self) -> list[str | None]:
        entries, able = self.store.tree.entries, self._able()
        owners = [data_of(entries.get(f"{GROUP_NAME}/shards/{n}")).get("owner") for n in range(self.weather.shards)]
        return [owner if owner in able else None for owner in owners]

    def _check_clients_view(self) -> None:
        """Check the public results and status against the record."""
        cluster = Cluster(MemoryBackend(self.store), GROUP_NAME)
        jobs = {job: cluster.job(job) for job, state in cluster.jobs().items() if not state.startswith("delet")}
        results = ((job, each) for job, handle in jobs.items() for each in handle.results())
        told = Counter((job, each.task_id, str(each.state)) for job, each in results)
        if told != Counter((job, task, state) for (job, task), state in self.record.outcomes.items() if job in jobs):
            raise Violation("P3: results() does not give what was recorded")
        tasks = cluster.status()["tasks"]
        states = Counter[str](self.record.outcomes.values())
        for job in self.record.ends.closing:
            states["cancelled"] += (cancelled := cluster.job(job).progress().cancelled)
            wrong = self.record.ends.miscounted(job, cancelled, sum(name == job for name, _ in self.record.outcomes))
            if wrong:
                raise Violation(wrong)
        states["skipped"] = sum(cluster.job(job).progress().skipped for job in cluster.jobs())
        ended = ("done", "failed", "quarantined", "skipped", *(("cancelled",) if states["cancelled"] else ()))
        if tasks != {"pending": 0, "running": 0} | {each: states[each] for each in ended}:
            raise Violation(f"P3: status tells {tasks} of {dict(states)}")


def play(seed: int, scenario: Scenario) -> World:
    """Play a schedule; raise Violation, with the world as its `world`, for a broken promise."""
    before = random.getstate()
    random.seed(seed)  # The pauses between a client's retries come from this generator.
    world = World(seed, scenario)
    try:
        world.run()
    except BaseException as error:
        if isinstance(error, Killed):
            raise RuntimeError("the scheduler let a kill escape") from error  # noqa: TRY004  # no wrong type
        error.world = world  # type: ignore[attr-defined]  # for whoever prints it
        raise
    finally:
        world.close()
        random.setstate(before)
    return world
