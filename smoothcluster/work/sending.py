"""Sending: settle the commits of owned shards, and find the reason when the store refuses a commit."""

import logging
from collections.abc import Callable
from math import inf
from typing import final

from smoothcluster.backend import Committed, Refused, commit_size
from smoothcluster.errors import BackendError, CommitTooLargeError, OutcomeUnknownError
from smoothcluster.pool import Run
from smoothcluster.records.codec import GarbageError
from smoothcluster.records.shard import Shard
from smoothcluster.work.context import WorkContext
from smoothcluster.work.observer import WorkloadObserver
from smoothcluster.work.shard_work import ShardWork

log = logging.getLogger("smoothcluster")

HINT_AFTER_UNANSWERED = 5
"""Number of attempts to send a commit without an answer after which the log has a hint."""

HOLD_SECONDS = 5.0
"""Seconds for which a shard is left alone whose record leaves no room for an outcome in a commit."""


@final
class Sender:
    """Sends the commits of one incarnation. *drop* drops a shard by number."""

    def __init__(self, context: WorkContext, observer: WorkloadObserver, drop: Callable[[int], None]) -> None:
        self._context, self._observer, self._drop = context, observer, drop
        self._backend = context.store.backend

    def settle(self, work: ShardWork, prepare: Callable[[], object]) -> list[Run]:
        """Send the pending commit until it is applied or the shard is lost; return the runs to start.

        If the server refuses the size of a commit that was never sent before, *prepare* builds a smaller commit. Raise
        CommitTooLargeError if there is none, or any other BackendError.
        """
        while work.pending is not None and not work.lost:
            try:
                result = self._backend.commit([], work.pending.changes)
            except CommitTooLargeError as error:
                if not work.build_smaller(error):
                    raise
                prepare()
                continue
            except BackendError as error:
                work.keep_pending()
                if isinstance(error, OutcomeUnknownError):
                    self._count_unanswered(work)
                raise
            version = self._find_reason(work, result)
            if version is not None:
                return work.applied(version)
        return []

    def _count_unanswered(self, work: ShardWork) -> None:
        """Log a hint if the same commit goes without an answer again and again: some servers answer none too large."""
        assert work.pending is not None
        work.unanswered += 1
        if work.unanswered == HINT_AFTER_UNANSWERED:
            size = commit_size([], work.pending.changes)
            log.warning(
                "the store at %s has not answered a commit of %d bytes and %d operations, sent %d times; if the store"
                " answers otherwise, the server may be set up for smaller commits: see 'smoothcluster doctor'",
                self._backend.url, size.bytes, size.operations, work.unanswered,
            )  # fmt: skip

    def hold(self, work: ShardWork, now: float, error: CommitTooLargeError) -> None:
        """No commit of the shard is small enough: leave the shard alone for a while, so that other shards go on."""
        if work.pending is None:
            if work.held_until == -inf:  # Once for each shard.
                log.error("no outcome of shard %d can be recorded for now: %s", work.number, error)
            work.held, work.held_until = True, now + HOLD_SECONDS
            return
        # The store may have received the commit before, so the commit must not be built anew. The store shows which
        # outcomes are recorded. The next claim of the shard, by us or by another member, runs the other tasks again.
        log.error("shard %d is dropped, to be claimed again: %s", work.number, error)
        self._drop(work.number)

    def _find_reason(self, work: ShardWork, result: Committed | Refused) -> str | None:
        """Return the version if the commit happened. After a refusal, return None to try again, or if lost."""
        assert work.pending is not None
        if isinstance(result, Committed):
            return result.versions[work.key]
        self._backend.sync()
        entry = self._backend.get(work.key)
        try:
            record = Shard.from_json(entry.value) if entry is not None else None
        except GarbageError as error:
            self._context.store.report(work.key, str(error))
            record = None
        if entry is not None and record is not None:
            if record.id == work.pending.id:
                # What was lost may be more than the answer, if the store can roll back.
                self._context.sent.clear()
                work.backlog.relist()
                return entry.version
            if entry.version == work.version and record.owner == self._context.incarnation:
                work.resolve_conflict(result.key)
                return None
        self._drop(work.number)
        if record is not None and (record.owner, record.epoch) == (self._context.incarnation, work.record.epoch):
            # The last commit was never acknowledged.
            self._observer.behind(work.number, record.seq, work.record.seq - 1)
        else:
            self._observer.lost(work.number)
        return None
