"""The member's own record in the store: read and rewrite the facts that a member publishes about itself.

The record lives as long as the member's lease, and every claim of the member compares the record's version.
"""

from dataclasses import replace

from smoothcluster.backend import Change, Committed, Update
from smoothcluster.group.election import role_of
from smoothcluster.group.events import EventLog
from smoothcluster.group.store import GroupStore
from smoothcluster.group.view import Versioned, View
from smoothcluster.member.readiness import Fitness
from smoothcluster.member.schedule import Schedule
from smoothcluster.model import Role
from smoothcluster.records.group import Member


class OwnRecord:
    """The member record of one incarnation, as of the last own commit or the last read of the group."""

    def __init__(self, store: GroupStore, read: Versioned[Member], events: EventLog, schedule: Schedule) -> None:
        self.read = read
        self._store, self._events, self._schedule = store, events, schedule

    @property
    def record(self) -> Member:
        """The record without the version."""
        return self.read.record

    def set_running(self) -> None:
        """Publish that this member works from now on, then have the group read again.

        `Incarnation.publish` calls this in each turn until the record says so. Raise any BackendError.
        """
        self._rewrite(replace(self.record, running=True, id=self._store.new_id()))
        self._schedule.overdue = True

    def set_fitness(self, found: Fitness, view: View, *, apart: bool) -> None:
        """Publish the results of the readiness check and whether child processes work, if either has changed.

        Only a Backup Runner publishes a reason not to take over. An unfit Backup Runner goes to the end of the queue,
        so after recovery the member pushes out no candidate ahead. `Incarnation.publish` calls this in each turn. Raise
        any BackendError.
        """
        before = self.record
        if role_of(view, before.incarnation) is not Role.BACKUP_RUNNER:
            found = Fitness(None, before.checked)
        if (found.unfit, found.checked, apart) == (before.unfit, before.checked, before.apart):
            return
        after = replace(before, unfit=found.unfit, checked=found.checked, apart=apart, id=self._store.new_id())
        queue: list[Change] = []
        if found.unfit is not None and before.unfit is None:
            # Members that joined before have a lower count, and so a place ahead. Members that join later compare the
            # spec that this commit sets, so they have the new count, or a higher one, and were created later.
            after = replace(after, join=view.spec.record.joins + 1)
            last = replace(view.spec.record, joins=after.join, id=after.id)
            queue = [Update(self._store.keys.spec, last.to_json(), view.spec.version)]
        if self._rewrite(after, *queue) and found.unfit != before.unfit:
            self._events.add("fitness", unfit=found.unfit)
        self._schedule.read_again()

    def set_results_wait(self, why: str | None) -> None:
        """Publish why outcomes wait on their way to the results sink, if that has changed. Raise any BackendError."""
        if why != self.record.results_wait:
            self._rewrite(replace(self.record, results_wait=why, id=self._store.new_id()))
            self._schedule.read_again()

    def write_again(self) -> bool:
        """Write the record again, with a new id alone. Return False if the store refused: then read the group again.

        The loop does so at the end of an outage, because reads alone do not show that the store accepts commits.
        """
        if self._rewrite(replace(self.record, id=self._store.new_id())):
            return True
        self._schedule.read_again()
        return False

    def _rewrite(self, after: Member, *others: Change) -> bool:
        """Replace the record by *after*, and apply *others* in the same commit. Return False if the store refused.

        Another member may change the record between the last read and this commit, to transfer shards to us or to take
        the seat. So the commit compares the version: a refusal keeps the change, and the next read finds it.
        """
        key = self._store.keys.member(after.incarnation)
        result = self._store.backend.commit([], [*others, Update(key, after.to_json(), self.read.version)])
        if isinstance(result, Committed):
            self.read = Versioned(after, result.versions[key])
        return isinstance(result, Committed)
