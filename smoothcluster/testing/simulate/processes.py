"""The processes of a simulated world: members, clients that submit jobs, and an administrator."""

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from smoothcluster.cluster import Cluster
from smoothcluster.errors import BackendError, JobClosedError, NameInUseError, SpecMismatchError, UsageError
from smoothcluster.failure_detector import Peer
from smoothcluster.group.breaker import Pacing
from smoothcluster.group.spec import Wanted
from smoothcluster.jobs.handle import JobHandle
from smoothcluster.member.environment import Environment
from smoothcluster.member.inbox import Inbox
from smoothcluster.member.loop import MemberLoop
from smoothcluster.member.settings import Settings
from smoothcluster.model import Task
from smoothcluster.options import Retries
from smoothcluster.pool import Run
from smoothcluster.testing.simulate.adoption_invariants import MEMBER_PACING
from smoothcluster.testing.simulate.children import SimChildren
from smoothcluster.testing.simulate.join_invariants import ADMINISTRATOR_NAME
from smoothcluster.testing.simulate.network import SimBackend
from smoothcluster.testing.simulate.pool import SimPool
from smoothcluster.testing.simulate.scheduler import Process, SimClock
from smoothcluster.work import place_of

if TYPE_CHECKING:
    from smoothcluster.testing.simulate.simulation import World

GROUP_NAME = "g"
LEASE_TTL_SECONDS = 2.0

SEARCH_ROUND_SECONDS = 5.0
"""Seconds in which a member searches all own shards, if members may miss wake-ups; otherwise no member searches."""

MISSED_WAKEUPS_FAULT = "deafen"
"""A member misses every wake-up of a watch for some time, although the contract of a store rules that out.

This fault is not among the default faults: members find the tasks by the search now and then, and with this search the
simulator would not notice a member that misses wake-ups through a mistake of its own."""

CANCEL_FAULT, DELETE_FAULT = "cancel", "delete"
"""A client cancels or deletes a job. Both are not among the default faults: they end schedules early."""


class SimProcess:
    """A process, with a network, a clock and a store client of the process's own."""

    def __init__(self, world: "World", name: str) -> None:
        self.world, self.name = world, name
        self.process = Process(name)
        self.clock = SimClock(world.scheduler)
        self.backend = SimBackend(
            world.scheduler, self.process, world.store, world.set_author, world.weather.slow, self._stalled
        )

    def _stalled(self, seconds: float) -> None:
        """A message of this process takes *seconds*: a fault may strike in the meantime."""

    @property
    def alive(self) -> bool:
        return not self.process.dead

    def kill(self) -> None:
        """Stop the process at the current point, and end its connections."""
        self.world.scheduler.kill(self.process)
        self.backend.close()


class SimMember(SimProcess):
    """A member's process: the real loop of a member, with a simulated pool and simulated probes."""

    def __init__(self, world: "World", name: str, idle: float) -> None:
        super().__init__(world, name)
        self.incarnation = ""
        self.greeted: dict[str, str] = {}
        """The watched peers, by incarnation: this member would learn at once of the death of a peer's process."""
        runner = world.weather.runner
        self._idle = idle
        self.loop = self._loop(Wanted(name, runner, world.weather.backup, world.weather.shards))
        world.scheduler.spawn(self.process, self._main)

    def _loop(self, wanted: Wanted) -> MemberLoop:
        world, scenario, scheduler = self.world, self.world.scenario, self.world.scheduler
        settings = Settings(
            GROUP_NAME, wanted, scenario.concurrency, LEASE_TTL_SECONDS,
                Retries(attempts=scenario.max_attempts, delay=0.1), 1.0,
            capacity=world.weather.capacities[int(self.name[1:])], pacing=Pacing(**MEMBER_PACING),  # type: ignore[arg-type]  # its numbers
        )  # fmt: skip
        inbox = Inbox(self.clock)
        self.children = SimChildren(self, world.weather.isolation, inbox.ring)
        environment = Environment(
            clock=self.clock,
            new_id=world.new_id,
            host="simulated",
            pid=1,
            address=("127.0.0.1", 1),
            announce=self._announce,
            watch_peers=self._watch_peers,
            make_pool=self._make_pool,
            keep_alive=lambda session: scheduler.spawn(self.process, session.run),
            inbox=inbox,
            apart=self.children,
            search_seconds=SEARCH_ROUND_SECONDS if MISSED_WAKEUPS_FAULT in world.weather.faults else math.inf,
        )
        return MemberLoop(self.backend, settings, environment)

    def _stalled(self, seconds: float) -> None:
        self.world.trouble.ambush(self, seconds)

    def _announce(self, _: str, __: str, incarnation: str) -> None:
        self.incarnation = incarnation

    def _watch_peers(self, peers: set[Peer], *, first: bool) -> None:  # noqa: ARG002  # all are watched late
        wanted = {peer.incarnation: peer.member for peer in sorted(peers, key=lambda peer: peer.incarnation)}
        self.greeted = {name: member for name, member in self.greeted.items() if name in wanted}
        self.world.scheduler.at(0.001, lambda: self._greet(wanted), self.process)

    def _greet(self, wanted: dict[str, str]) -> None:
        living = {member.incarnation for member in self.world.members.values() if member.alive}
        self.greeted |= {name: member for name, member in wanted.items() if name in living}

    def _make_pool(self, deliver: Callable[[], None], can_start: Callable[[Run], bool]) -> SimPool:
        return SimPool(self, deliver, can_start)

    def dies(self, run: Run) -> None:
        """A task ends the process of this member."""
        self.world.note(f"{self.name} ({self.incarnation}) dies of {run.task.id}")
        self.world.record.lost(*self._run_facts(run))
        self.kill()
        self.world.trouble.start_again(self.name)

    def started(self, run: Run) -> None:
        self.world.record.started(*self._run_facts(run))

    def _run_facts(self, run: Run) -> tuple[str, tuple[str, int], str, str, dict[str, int]]:
        """A run as arguments for the record: incarnation, place, job, task, and this member's beliefs about the run."""
        context = run.context
        believed = {"shard": context.shard, "epoch": context.epoch, "attempt": context.attempt}
        return self.incarnation, place_of(run), context.job, run.task.id, believed

    def _main(self) -> None:
        while self.loop.life is None:
            try:
                if self.loop.try_join():
                    self.loop.take_seat()
            except (BackendError, NameInUseError):
                self.clock.sleep(0.1)
            except SpecMismatchError:  # The spec was changed: the operator of this member adopts the group's spec.
                self.loop = self._loop(Wanted(self.name, None, None))
        self.clock.sleep(self._idle)
        self.loop.run()
        self.world.gone(self)

    def kill(self) -> None:
        """Kill the process; members connected to the process notice the death."""
        super().kill()
        self.world.record.given_up.setdefault(self.incarnation, self.world.scheduler.now)
        scheduler = self.world.scheduler
        for other in self.world.members.values():
            if self.incarnation in other.greeted and not other.backend.cut:
                delay = scheduler.random.uniform(0.0005, 0.005)
                tell = other.loop.inbox.proved_gone
                scheduler.at(delay, partial(tell, self.incarnation, 0.001), other.process)


class SimClient(SimProcess):
    """Submits a job and waits for the job's end; after a restart, submits the same job again."""

    def __init__(self, world: "World", job: str, tasks: list[Task], drop: float, *, again: bool) -> None:
        super().__init__(world, f"client-{job}")
        self.job, self.tasks = job, tasks
        self._again = again
        self.backend.drop = drop
        self.cluster = Cluster(self.backend, GROUP_NAME, clock=self.clock, patience=1e9)
        world.scheduler.spawn(self.process, self._main)

    def _main(self) -> None:
        world, job = self.world, self.job
        while self.cluster.absent():
            self.clock.sleep(0.1)  # The first member sets the number of shards.
        world.record.submit(job, [task.id for task in self.tasks])
        try:
            handle = self.cluster.submit(self.tasks, job=job)
        except JobClosedError:
            if not self._again and job not in world.record.ends.closing:
                raise
            handle = self.cluster.job(job)  # The job was sealed before its client died, and has finished since.
        world.note(f"{job} submitted")
        # Not `wait`: its polls, several a second, would be the larger part of the simulated work.
        while not handle.progress().finished:
            self.clock.sleep(world.random.choice((0.1, 1.0, 3.0)) * world.random.random())
        world.note(f"{job} finished")
        world.record.told_finished(job)
        world.jobs_running -= 1
        self.process.dead = True
        self.backend.close()


class SimEnder(SimProcess):
    """Cancels or deletes a job; after a restart, once more."""

    def __init__(self, world: "World", verb: str, job: str, drop: float) -> None:
        super().__init__(world, f"{verb}-{job}")
        self.verb, self.job, self.done = verb, job, False
        self.backend.drop = drop
        self.cluster = Cluster(self.backend, GROUP_NAME, clock=self.clock, patience=1e9)
        world.scheduler.spawn(self.process, self._main)

    def _main(self) -> None:
        while not self.done:
            try:
                self._end(self.cluster.job(self.job))
                self.done = True
            except UsageError:  # The job is not in the store yet, or the store has lost the job.
                self.clock.sleep(0.2)
        self.world.note(f"{self.verb} of {self.job} is done")
        self.process.dead = True
        self.backend.close()

    def _end(self, job: JobHandle) -> None:
        self.world.record.ends.closing.add(self.job)
        if self.verb == CANCEL_FAULT:
            job.cancel()
            return
        for step in job.deletion():
            if step.wait:
                self.clock.sleep(0.5 * self.world.random.random())


class SimAdmin(SimProcess):
    """Changes the number of Runners, and exits."""

    def __init__(self, world: "World", runner: int, drop: float) -> None:
        super().__init__(world, ADMINISTRATOR_NAME)
        self._runner = runner
        self.backend.drop = drop
        world.scheduler.spawn(self.process, self._main)

    def _main(self) -> None:
        cluster = Cluster(self.backend, GROUP_NAME, clock=self.clock, patience=1e9)
        try:
            cluster.change_spec(runner=self._runner)
            self.world.note(f"changed runner to {self._runner}")
        except UsageError as error:  # No member has joined yet.
            self.world.note(f"not changed: {error}")
        self.process.dead = True
        self.backend.close()
