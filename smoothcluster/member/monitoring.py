"""What one incarnation keeps an eye on: few keys and few ports, chosen by what it saw last.

Its own record, since others end an incarnation or hand it shards by changing that; the records
and ports of those whose deaths are its to notice; and for a Runner the seats, since whoever takes
one is due a share of its shards. Who waits for a seat need not watch them: when one gets free,
its holder's record changes. The first Runners watch the join counter, too: they are the ones that
notice the deaths of those who wait.

Where all members are Runners, whoever comes or goes changes everybody's share. So all of them watch
the directory of members, for births and deaths only, and no other member's record.
"""

from collections.abc import Callable

from smoothcluster.backend import CoordinationBackend, Watch
from smoothcluster.failure_detector import Peer
from smoothcluster.group.monitors import watched_by
from smoothcluster.group.view import View
from smoothcluster.member.environment import Environment
from smoothcluster.member.settings import Settings
from smoothcluster.records.group import Member
from smoothcluster.records.keys import Keys

WATCHERS = 2
"""Members that keep an eye on each Runner."""


class Monitor:
    """The watches and probes of one incarnation."""

    def __init__(
        self,
        backend: CoordinationBackend,
        keys: Keys,
        settings: Settings,
        environment: Environment,
        me: str,
        mine: Callable[[], None],
        others: Callable[[], None],
    ) -> None:
        self._backend, self._keys, self._settings, self._environment = backend, keys, settings, environment
        self._me, self._mine, self._others = me, mine, others
        self._watches: dict[str, Watch] = {}
        self._done: View | None = None

    def follow(self, view: View | None, *, first: bool) -> None:
        """Watch and probe what *view* says must be; *mine* is called if that is more than before.

        For what was armed only now may have changed between the look and the arming.
        """
        if view is None or view is self._done:
            return
        peers = watched_by(view, self._me, self._settings.order, WATCHERS)
        living = view.living()
        group = self._settings.group
        self._environment.watch_peers({_peer(group, living[name]) for name in peers if living[name].port}, first)
        paths = self._paths(view, peers)
        for path in set(self._watches) - paths:
            self._watches.pop(path).close()
        for path in sorted(paths - set(self._watches)):
            self._mine()
            notify = self._mine if path == self._keys.member(self._me) else self._others
            self._watches[path] = self._backend.watch(path, notify, values=path != self._keys.members)
        self._done = view

    def _paths(self, view: View, peers: set[str]) -> set[str]:
        if view.all_run:
            return {self._keys.member(self._me), self._keys.members}
        paths = {self._keys.member(name) for name in (*peers, self._me)}
        runners = view.runners()
        if self._me in runners:
            paths.add(self._keys.seats)
        if self._me in runners[:WATCHERS]:
            paths.add(self._keys.spec)
        return paths

    def forget(self, incarnation: str) -> None:
        """It is known to be dead: the end of its record is no news, and would wake us amid the takeover."""
        watch = self._watches.pop(self._keys.member(incarnation), None)
        if watch is not None:
            watch.close()

    def close(self) -> None:
        """Look no more."""
        for watch in self._watches.values():
            watch.close()
        self._environment.watch_peers(set(), False)


def _peer(group: str, member: Member) -> Peer:
    return Peer(member.incarnation, member.name, group, member.address, member.port)
