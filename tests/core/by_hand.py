"""Members without threads, a job for them, and turning them until it is done."""

from core_kit import Group

from smoothcluster.cluster import Cluster
from smoothcluster.member.loop import MemberLoop
from smoothcluster.model import Task


def incarnation(loop: MemberLoop) -> str:
    """The member's incarnation id."""
    assert loop.life is not None
    return loop.life.id


def submit(group: Group, count: int, job: str = "j") -> Cluster:
    """A job of so many tasks."""
    cluster = Cluster(group.backend, "g", clock=group.clock)
    cluster.submit([Task(id=f"{job}.{number}") for number in range(count)], job)
    return cluster


def work_off(group: Group, *loops: MemberLoop, rounds: int = 60) -> None:
    """Let the members work until nothing is left."""
    for _ in range(rounds):
        group.turn(*loops, times=1)
        for loop in loops:
            Group.pool(loop).finish()
        group.clock.advance(0.05)
        group.renew(*loops)
    group.turn(*loops)
