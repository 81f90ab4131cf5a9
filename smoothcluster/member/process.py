"""The process of a member: the loop, with the real clock, sockets, threads and child processes around the loop.

The simulator has processes of its own, with the same loop.
"""

import os
import socket
from collections.abc import Callable
from functools import partial
from typing import final

from smoothcluster.backend import CoordinationBackend
from smoothcluster.clock import SYSTEM_CLOCK
from smoothcluster.failure_detector import Listener, Prober, Proof, listen_address
from smoothcluster.group.store import random_id
from smoothcluster.member.background import BackgroundThread
from smoothcluster.member.environment import Environment
from smoothcluster.member.inbox import Inbox
from smoothcluster.member.loop import MemberLoop
from smoothcluster.member.readiness import Readiness
from smoothcluster.member.settings import Settings
from smoothcluster.model import Handler, Role
from smoothcluster.options import Isolation
from smoothcluster.pool import make_pool
from smoothcluster.pool.children.limits import make_children
from smoothcluster.recipes.session import Session
from smoothcluster.sinks.cache import OpenSinks


@final
class MemberProcess:
    """A member in this process.

    Raise UsageError if *isolation* is given and no child process can import *handler*, or if this machine cannot
    *listen* there.
    """

    def __init__(
        self, backend: CoordinationBackend, settings: Settings, handler: Handler, isolation: Isolation | None,
        warm_up: Callable[[], object] | None, listen: str | None,
    ) -> None:  # fmt: skip
        where = listen_address(listen, one_machine=backend.one_machine)
        self.inbox = Inbox(SYSTEM_CLOCK)
        self._children = make_children(handler, settings.concurrency, isolation, self.inbox.ring)
        self._listener = Listener(where)
        self._prober = Prober(self._on_proof)
        self.readiness = Readiness(
            self._children.check, warm_up, self._is_standing_by, self.inbox.wake.set, SYSTEM_CLOCK, self._warm_up
        )
        self._background, self.sinks = BackgroundThread(), OpenSinks()
        environment = Environment(
            clock=SYSTEM_CLOCK,
            new_id=random_id,
            host=socket.gethostname(),
            pid=os.getpid(),
            address=self._listener.address,
            announce=self._listener.announce,
            watch_peers=self._prober.watch,
            make_pool=partial(make_pool, handler, settings.concurrency, apart=self._children),
            keep_alive=Session.start,
            inbox=self.inbox,
            apart=self._children,
            background=self._background.run,
            sinks=self.sinks,
            fitness=self.readiness.fitness,
        )
        self.loop = MemberLoop(backend, settings, environment)

    def _on_proof(self, incarnation: str, _: Proof, after: float) -> None:
        self.inbox.proved_gone(incarnation, after)

    def _is_standing_by(self) -> bool:
        return self.loop.role is Role.BACKUP_RUNNER

    def _warm_up(self) -> None:
        """Have children ready for a takeover. If all tasks run in children, those of a Runner start with its tasks."""
        if not self._children.every or self._is_standing_by():
            self._children.warm_up()

    def close(self) -> None:
        """End all threads, sockets and child processes. Call after `MemberLoop.run` has returned."""
        self.readiness.stop()
        self.loop.pool.stop(0.0)
        self._background.close()
        self.sinks.close()
        self._children.close()
        self._prober.close()
        self._listener.close()
