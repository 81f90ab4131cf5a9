"""The environment of a member: the clock, the network address, the handler pool and other services of the process."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from smoothcluster.clock import Clock
from smoothcluster.failure_detector import Peer
from smoothcluster.member.inbox import Inbox
from smoothcluster.member.outboxes import Background
from smoothcluster.member.readiness import Fitness
from smoothcluster.member.task_search import SEARCH_ROUND_SECONDS
from smoothcluster.pool import Apart, NoChildren, Pool, Run
from smoothcluster.recipes.session import Session
from smoothcluster.sinks.cache import OpenSinks

NO_CHILDREN = NoChildren()


class WatchPeers(Protocol):
    """Probe exactly *peers* for their deaths; without delay if we are *first* in line to act."""

    def __call__(self, peers: set[Peer], *, first: bool) -> None: ...


@dataclass(frozen=True, slots=True)
class Environment:
    """Services of the process and the machine for a member. The simulator provides others."""

    clock: Clock
    new_id: Callable[[], str]
    """Make an id that no process ever makes again."""
    host: str
    pid: int
    address: tuple[str, int]
    """Numeric host and port for other members to notice the death of the process."""
    announce: Callable[[str, str, str], None]
    """Have this port greet callers with group, member and incarnation from now on. Called after each join."""
    watch_peers: WatchPeers
    """Probe members for their deaths. The maker of the member passes proofs to `Inbox.proved_gone`."""
    make_pool: Callable[[Callable[[], None], Callable[[Run], bool]], Pool]
    """Make the handler pool, given a function to call after each finished task, and a function to allow a start."""
    keep_alive: Callable[[Session], None]
    """Run the renewals of a session in the background. Called for each new session."""
    inbox: Inbox
    """The messages of other threads to the loop."""
    apart: Apart = NO_CHILDREN
    """The child processes for suspects, or for all tasks under isolation."""
    search_seconds: float = SEARCH_ROUND_SECONDS
    """Seconds in which a member searches every idle shard of its own for tasks."""
    background: Background | None = None
    """Run a call in another thread; None if this process moves no results to a sink."""
    sinks: OpenSinks = field(default_factory=OpenSinks)
    fitness: Callable[[], Fitness] = Fitness
    """Return the result of the last readiness check."""
