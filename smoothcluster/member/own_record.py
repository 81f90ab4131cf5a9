"""What a member tells the group about itself, in the record that its lease keeps and every claim of it compares."""

from collections.abc import Callable
from dataclasses import replace

from smoothcluster.backend import Change, Committed, CoordinationBackend, Update
from smoothcluster.group.election import role_of
from smoothcluster.group.events import EventLog
from smoothcluster.group.view import Versioned, View
from smoothcluster.member.readiness import Fitness
from smoothcluster.member.schedule import Schedule
from smoothcluster.model import Role
from smoothcluster.records.group import Member
from smoothcluster.records.keys import Keys


class OwnRecord:
    """The record of one incarnation, as it stands by our last commit or look."""

    def __init__(
        self, backend: CoordinationBackend, keys: Keys, read: Versioned[Member], events: EventLog, schedule: Schedule,
        new_id: Callable[[], str],
    ) -> None:  # fmt: skip
        self.read = read
        self._backend, self._keys, self._events, self._schedule, self._new_id = backend, keys, events, schedule, new_id

    @property
    def record(self) -> Member:
        """What it says."""
        return self.read.record

    def set_running(self) -> None:
        """Tell the group that this member works from now on."""
        self._rewrite(replace(self.record, running=True, id=self._new_id()))
        self._schedule.overdue = True

    def set_fitness(self, found: Fitness, view: View, *, apart: bool) -> None:
        """Tell the group what this member has found out about itself, if that is news.

        Only who stands by says whether it could take over. Who becomes unfit goes to the end of the
        queue: when it is well again it must push out nobody who has taken its place.
        """
        before = self.record
        if role_of(view, before.incarnation) is not Role.BACKUP_RUNNER:
            found = Fitness(None, before.checked)
        if (found.unfit, found.checked, apart) == (before.unfit, before.checked, before.apart):
            return
        after = replace(before, unfit=found.unfit, checked=found.checked, apart=apart, id=self._new_id())
        queue: list[Change] = []
        if found.unfit is not None and before.unfit is None:
            after = replace(after, join=view.spec.record.joins + 1)
            last = replace(view.spec.record, joins=after.join, id=after.id)
            queue = [Update(self._keys.spec, last.to_json(), view.spec.version)]
        if self._rewrite(after, *queue) and found.unfit != before.unfit:
            self._events.add("fitness", unfit=found.unfit)
        self._schedule.look_again()

    def _rewrite(self, after: Member, *others: Change) -> bool:
        """Have it be *after*, together with *others*; whether that was in time."""
        key = self._keys.member(after.incarnation)
        result = self._backend.commit([], [*others, Update(key, after.to_json(), self.read.version)])
        if isinstance(result, Committed):
            self.read = Versioned(after, result.versions[key])
        return isinstance(result, Committed)
