"""Monitoring: the few keys and ports that one incarnation watches, chosen from the last view of the group.

- The own member record: other members end an incarnation, or transfer shards to a member, by a change of this record.
- The records and ports of the members whose deaths this member must notice.
- A Runner watches the seats, because the next holder of a seat is due a share of the Runner's shards. A candidate need
  not watch the seats: when a seat becomes free, the record of the holder changes.
- The first Runners also watch the spec, and the directory of members for creations and deletions, because they must
  notice the deaths of candidates.

Where all members are Runners, every join and every departure changes all shares. So each member watches the directory
of members, for creations and deletions only, and no record but the own.
"""

from smoothcluster.backend import Watch
from smoothcluster.failure_detector import Peer
from smoothcluster.group.monitors import watched_by
from smoothcluster.group.store import GroupStore
from smoothcluster.group.view import View
from smoothcluster.member.environment import Environment
from smoothcluster.member.schedule import Schedule
from smoothcluster.member.settings import Settings
from smoothcluster.records.group import Member

MONITORS_PER_RUNNER = 2
"""How many candidates watch every Runner, and how many Runners watch the candidates and the joins."""


class Monitor:
    """The watches and probes of one incarnation."""

    def __init__(
        self, store: GroupStore, settings: Settings, environment: Environment, me: str, schedule: Schedule
    ) -> None:
        self._backend, self._keys, self._settings, self._environment = store.backend, store.keys, settings, environment
        self._me, self._schedule = me, schedule
        self._watches: dict[str, Watch] = {}
        self._done: View | None = None

    def follow(self, view: View | None, *, first: bool) -> None:
        """Watch and probe the keys and ports for *view* only. If a watch is new, have the group read again.

        The loop calls this in each turn; an unchanged view costs nothing. *first* says whether this member is first in
        line to act on a death. Raise any BackendError; the next call goes on with the missing watches.
        """
        if view is None or view is self._done:
            return
        peers = watched_by(view, self._me, self._settings.order, MONITORS_PER_RUNNER)
        living = view.living()
        group = self._settings.group
        self._environment.watch_peers({_peer(group, living[name]) for name in peers if living[name].port}, first=first)
        paths = self._paths(view, peers)
        for path in set(self._watches) - paths:
            self._watches.pop(path).close()
        for path in sorted(paths - set(self._watches)):
            # The key may change between the read of *view* and the arming of the watch, without a call of *notify*. So
            # the group is read again after the arming. The request comes first: the arming may fail halfway.
            self._schedule.read_again()
            own = path == self._keys.member(self._me)
            notify = self._schedule.read_again if own else self._schedule.read_soon
            self._watches[path] = self._backend.watch(path, notify, values=path != self._keys.members)
        self._done = view

    def _paths(self, view: View, peers: set[str]) -> set[str]:
        if view.all_run:
            return {self._keys.member(self._me), self._keys.members}
        paths = {self._keys.member(name) for name in (*peers, self._me)}
        runners = view.runners()
        if self._me in runners:
            paths.add(self._keys.seats)
        if self._me in runners[:MONITORS_PER_RUNNER]:
            paths |= {self._keys.spec, self._keys.members}
        return paths

    def forget(self, incarnation: str) -> None:
        """Stop watching the record of *incarnation*, which is proved dead.

        The removal of this record is no news, and would wake the loop amid the takeover.
        """
        watch = self._watches.pop(self._keys.member(incarnation), None)
        if watch is not None:
            watch.close()

    def close(self) -> None:
        """Close all watches and stop probing. Called when the incarnation is over."""
        for watch in self._watches.values():
            watch.close()
        self._environment.watch_peers(set(), first=False)


def _peer(group: str, member: Member) -> Peer:
    return Peer(member.incarnation, member.name, group, member.address, member.port)
