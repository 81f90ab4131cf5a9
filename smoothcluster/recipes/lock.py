"""A fair distributed lock with fencing tokens, written once for every backend.

Contenders queue under a directory, each with an entry on the contender's session lease; the oldest
entry holds the lock. Each contender waits for the entry just ahead, so one departure wakes one waiter.

A lock is only as safe as the lease. Another contender may hold the lock too between the moment when the
store ends the lease and the moment when `held` turns false here, and for as long as this process is
paused between a check of `held` and the next act. So put `condition` into every commit that the lock
protects: the store then refuses a late commit. Pass `token`, which rises with each holder, along with writes
to other systems, and let these systems refuse older tokens.

A `Lock` is for one thread and not reentrant: acquiring twice is an error. A `Lock` is also for one process: in a forked
child, every call raises UsageError.
"""

import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from math import inf
from types import TracebackType
from typing import Self, final

from smoothcluster.arguments import check_backend, check_text, check_timeout, shown
from smoothcluster.backend import (
    AtVersion,
    Committed,
    Condition,
    CoordinationBackend,
    Create,
    Delete,
    Entry,
    Refused,
    Update,
    check_key,
)
from smoothcluster.clock import Signal
from smoothcluster.errors import BackendError, LeaseLostError, OutcomeUnknownError, UnavailableError, UsageError
from smoothcluster.lifetime import SPAWN_ADVICE, OwnProcess
from smoothcluster.recipes.session import LeaseState, Session


def _unique() -> str:
    return secrets.token_hex(16)


@final
class Lock:
    """One contender for the lock at *directory*, for as long as *session* lives.

    *owner* is shown to people who look at the queue. *new_id* gives names for entries: each name
    must be unique among all contenders, and never be given again.

    If the store never repeats a version, the lock uses the name of an entry again after the entry has certainly left:
    to list a directory, a store with a history reads every name that the directory ever had.
    """

    def __init__(
        self,
        backend: CoordinationBackend,
        session: Session,
        directory: str,
        *,
        owner: str = "",
        new_id: Callable[[], str] = _unique,
    ) -> None:
        self._process = OwnProcess("this lock", f"make backend and lock in the child process, or {SPAWN_ADVICE}")
        check_backend(backend)
        check_text("owner", owner)
        if not isinstance(session, Session):  # pyright: ignore[reportUnnecessaryIsInstance]  # users may not check types
            raise UsageError(f"session must be a Session, not {shown(session)}")
        try:
            check_key(directory)
        except (TypeError, ValueError):
            raise UsageError(f"directory {directory!r:.80} is not valid: use a key such as 'locks/index'") from None
        self._backend = backend
        self._session = session
        self._directory = directory
        self._owner = (owner or session.lease.id).encode()
        self._new_id = new_id
        self._mine: Entry | None = None
        self._keeps_names = backend.guarantees.unique_versions
        self._left: str | None = None  # Key of an entry of ours that is certainly gone: the name is free.
        self._leaving: dict[str, bool] = {}  # By key: whether a deletion was tried before and may still happen.
        self._unsure: set[str] = set()

    def acquire(self, timeout: float | None = None) -> bool:
        """Wait for the lock; return False after *timeout* seconds without the lock. 0 means no waiting.

        Raise LeaseLostError if the session ended or the entry was removed meanwhile; errors of the backend escape.
        A waiting call ends with BackendClosedError when the backend is closed, and with LeaseLostError when the lease
        runs out because nobody renews it (`Session.start` was not called).
        The contender leaves the queue again, unless the method returns True. If the store is out of reach then,
        the entry goes with the lease, or with the next call that reaches the store.
        """
        self._process.check()
        check_timeout(timeout)
        if self._mine is not None:
            raise UsageError("this Lock is already acquired: release the lock first, or make another Lock")
        clock = self._session.clock
        until = None if timeout is None or timeout == inf else clock.monotonic() + timeout
        self._remove_leaving()
        key, self._left = self._left or f"{self._directory}/{self._new_id()}", None
        try:
            self._mine = self._await_turn(key, self._enter(key), until)
        except BaseException as error:
            # An entry left behind could become the oldest and hold the lock without a holder.
            if isinstance(error, LeaseLostError):
                self._session.renew_once()
            self._mine = None
            self._leaving[key] = True
            with suppress(BackendError):
                self._remove_leaving()
            raise
        if self._mine is None:
            self._leaving[key] = False
            self._remove_leaving()
        return self._mine is not None

    def release(self) -> None:
        """Release the lock; the oldest waiter gets the lock next. Repeatable, and harmless after a loss.

        The backend raises an error if the store is out of reach: call `release` again, or close the session.
        """
        self._process.check()
        if self._mine is not None:
            self._leaving[self._mine.key] = False
            self._mine = None
        self._remove_leaving()

    def held(self) -> bool:
        """True while this contender certainly holds the lock: acquired, and the session's lease is held."""
        self._process.check()
        return self._mine is not None and self._session.held()

    @property
    def token(self) -> int:
        """The fencing token: larger for each later holder of this lock."""
        return self._acquired().created

    @property
    def condition(self) -> Condition:
        """A condition for `commit`: holds as long as this acquisition of the lock lasts."""
        mine = self._acquired()
        return AtVersion(mine.key, mine.version)

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _acquired(self) -> Entry:
        self._process.check()
        if self._mine is None:
            raise UsageError("this Lock is not acquired; acquire the lock first")
        return self._mine

    def _enter(self, key: str) -> Sequence[Entry]:
        """Join the queue at the end, and read the queue."""
        create = Create(key, self._owner, self._session.lease)
        try:
            outcome, queue = self._backend.commit_and_list([], [create], self._directory)
        except OutcomeUnknownError:
            self._unsure.add(key)
            self._backend.sync()
            # The retry must be identical: the first attempt may still arrive, before or after the retry.
            if self._backend.get(key) is not None or isinstance(self._backend.commit([], [create]), Refused):
                self._unsure.discard(key)
            return self._backend.list(self._directory)
        if isinstance(outcome, Committed) or not any(map(partial(self._is_ours, key), queue)):
            return queue
        # The store has lost our departure: in the old place our entry would have the old token, too.
        self._backend.commit([], [Delete(key)])
        return self._enter(key)

    def _is_ours(self, key: str, entry: Entry) -> bool:
        return entry.key == key and entry.lease == self._session.lease.id

    def _await_turn(self, key: str, queue: Sequence[Entry], until: float | None) -> Entry | None:
        """Return our entry once the entry is the oldest; None if the time is over before."""
        mine, ahead = self._place(key, queue)
        if ahead is not None:
            wake = self._session.clock.signal()
            forget = self._session.on_lost(wake.set)
            try:
                while ahead is not None:
                    if not self._await_departure(ahead, wake, until):
                        return None
                    # Our own entry may have gone while we waited, and a read that lags would not show it.
                    self._backend.sync()
                    mine, ahead = self._place(key, self._backend.list(self._directory))
            finally:
                forget()
        self._check_lease()
        return mine

    def _place(self, key: str, queue: Sequence[Entry]) -> tuple[Entry, Entry | None]:
        """Our entry and the entry just ahead, None if ours is the oldest."""
        ahead = None
        for entry in sorted(queue, key=lambda entry: (entry.created, entry.key)):
            if self._is_ours(key, entry):
                return entry, ahead
            if entry.value:
                ahead = entry
        raise LeaseLostError(f"the entry {key} is no longer in the queue; acquire the lock again")

    def _await_departure(self, ahead: Entry, wake: Signal, until: float | None) -> bool:
        """Wait until *ahead* leaves the queue; False if the time is over before."""
        watch = self._backend.watch(ahead.key, wake.set)
        try:
            while True:
                wake.clear()
                if self._session.lost.is_set():
                    raise self._session.loss
                entry = self._backend.get(ahead.key)
                if entry is None or not entry.value or entry.created != ahead.created:
                    return True
                left = None if until is None else until - self._session.clock.monotonic()
                if left is not None and left <= 0:
                    return False
                self._session.wait_for(wake, left)
        finally:
            watch.close()

    def _check_lease(self) -> None:
        if self._session.held() or self._session.renew_once() is LeaseState.RENEWED:
            return
        if self._session.lost.is_set():
            raise self._session.loss
        raise UnavailableError("the lease may have run out, and the store could not be asked")

    def _remove_leaving(self) -> None:
        """Remove every leaving entry from the queue."""
        for key, tried in list(self._leaving.items()):
            self._leaving[key] = True
            # Without the lease, no entry is left and none can arrive.
            with suppress(LeaseLostError):
                if key in self._unsure:
                    self._leave_empty_entry(key)
                elif isinstance(self._backend.commit([], [Delete(key)]), Committed) and not tried:
                    self._left = key if self._keeps_names else None
            self._unsure.discard(key)
            del self._leaving[key]

    def _leave_empty_entry(self, key: str) -> None:
        """Leave an empty entry at *key*: others ignore the entry, and the entry goes with the lease.

        An earlier attempt to create the entry may still be on the way, and must find the name taken. After a
        plain deletion the attempt would put us back in the queue, with no thread waiting.
        """
        if isinstance(self._backend.commit([], [Create(key, b"", self._session.lease)]), Committed):
            return
        self._backend.commit([], [Update(key, b"")])
