"""What a member is given: how it is to behave, and what it needs of the machine it runs on."""

from collections.abc import Callable
from dataclasses import dataclass

from smoothcluster.clock import Clock
from smoothcluster.failure_detector import Peer
from smoothcluster.member.readiness import Fitness
from smoothcluster.pool import Apart, NoChildren, Pool, Run
from smoothcluster.recipes.session import Session

NO_CHILDREN = NoChildren()


@dataclass(frozen=True, slots=True)
class Environment:
    """What a member needs of the machine it runs on. The simulator has its own."""

    clock: Clock
    new_id: Callable[[], str]
    """Makes ids that are never made again, anywhere."""
    host: str
    pid: int
    address: tuple[str, int]
    """Where others can notice the process's death."""
    announce: Callable[[str, str, str], None]
    """Have that port greet callers with group, member and incarnation."""
    watch_peers: Callable[[set[Peer], bool], None]
    """Probe these members, at once if we are first in line to act on a death. Whoever makes the member passes
    proofs to `MemberLoop.proved_gone`."""
    make_pool: Callable[[Callable[[], None], Callable[[Run], bool]], Pool]
    """Make the handler pool, given what to call when a task has finished and what allows a start."""
    keep_alive: Callable[[Session], None]
    """Run a session's renewals in the background."""
    apart: Apart = NO_CHILDREN
    """The child processes that suspects are run in."""
    fitness: Callable[[], Fitness] = Fitness
    """Whether this member, while it stands by, could take over."""
