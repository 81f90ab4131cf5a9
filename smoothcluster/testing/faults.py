"""A wrapper around a backend that loses, delays and refuses the calls chosen by a test."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Literal, TypeVar, final

from smoothcluster.backend import (
    Change,
    Committed,
    Condition,
    CoordinationBackend,
    Create,
    Entry,
    Guarantees,
    Lease,
    Refused,
    Watch,
    check_commit,
)
from smoothcluster.errors import BackendError, OutcomeUnknownError, UnavailableError

Act = Literal["read", "commit", "lease", "renew", "revoke"]
"""The kinds of calls subject to faults. Arming and closing a watch always succeeds."""

Answer = TypeVar("Answer")


class _Fault(Enum):
    DROPPED = "applied, and the acknowledgement lost"
    HELD = "not applied yet, and may still be"
    REFUSED = "not sent"


@dataclass(slots=True)
class _Line:
    """The connection shared by all parts of one client."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    faults: dict[Act, deque[_Fault]] = field(default_factory=dict[Act, deque[_Fault]])
    held: list[Callable[[], object]] = field(default_factory=list[Callable[[], object]])
    cut: type[BackendError] | None = None
    muted: dict[object, Callable[[], None]] = field(default_factory=dict[object, Callable[[], None]])
    parts: "dict[str, Faulty]" = field(default_factory=dict[str, "Faulty"])


@final
class _Lease(Lease):
    def __init__(self, backend: "Faulty", inner: Lease) -> None:
        self._backend = backend
        self.inner = inner

    @property
    def id(self) -> str:
        return self.inner.id

    @property
    def ttl(self) -> float:
        return self.inner.ttl

    def renew(self) -> bool:
        return self._backend.through("renew", self.inner.renew)

    def revoke(self) -> None:
        self._backend.through("revoke", self.inner.revoke)


@final
class Faulty(CoordinationBackend):
    """A client of the same store as *inner*, with faults at a test's command.

    `drop_answer`, `hold` and `refuse` each affect the next *act* of a kind without a fault queued before; faults of
    one kind are used up in order. A group's part of the store is reached over the same connection: faults of the
    whole also affect the part, and the reverse.
    """

    def __init__(self, inner: CoordinationBackend, line: _Line | None = None) -> None:
        self.inner = inner
        self._line = line or _Line()

    def drop_answer(self, act: Act = "commit") -> None:
        """Arm a fault: the next *act* is executed, and then raises OutcomeUnknownError."""
        self._line.faults.setdefault(act, deque()).append(_Fault.DROPPED)

    def hold(self, act: Act = "commit") -> None:
        """Arm a fault: the next *act* raises OutcomeUnknownError, and is executed by `deliver`, or never."""
        self._line.faults.setdefault(act, deque()).append(_Fault.HELD)

    def refuse(self, act: Act = "commit", times: int = 1) -> None:
        """Arm faults: the next *act*, and as many as *times*, raises UnavailableError and is never executed."""
        self._line.faults.setdefault(act, deque()).extend([_Fault.REFUSED] * times)

    def deliver(self) -> list[object]:
        """Execute the held calls in order; return the answer or the error of each."""
        held, self._line.held = self._line.held, []
        return [_outcome(call) for call in held]

    def cut(self, error: type[BackendError] = UnavailableError) -> None:
        """From now on every act raises *error* without being executed, and no watch wakes."""
        self._line.cut = error

    def mend(self) -> None:
        """End a `cut`, and wake every watch: each may have missed a change."""
        with self._line.lock:
            self._line.cut = None
            waiting = list(self._line.muted.values())
        for notify in waiting:
            notify()

    def through(self, act: Act, call: Callable[[], Answer]) -> Answer:
        """Execute *call*, or apply the next fault of *act*."""
        if self._line.cut is not None:
            raise self._line.cut(f"{act}: cut off")
        with self._line.lock:
            faults = self._line.faults.get(act)
            fault = faults.popleft() if faults else None
        match fault:
            case None:
                return call()
            case _Fault.REFUSED:
                raise UnavailableError(f"{act}: not sent")
            case _Fault.HELD:
                self._line.held.append(call)
            case _Fault.DROPPED:
                call()
        raise OutcomeUnknownError(f"{act}: no answer")

    @property
    def guarantees(self) -> Guarantees:
        return self.inner.guarantees

    @property
    def one_machine(self) -> bool:
        return self.inner.one_machine

    @property
    def url(self) -> str:
        return self.inner.url

    def for_group(self, group: str) -> "Faulty":
        inner = self.inner.for_group(group)
        if inner is self.inner:
            return self
        with self._line.lock:
            return self._line.parts.setdefault(group, Faulty(inner, self._line))

    def get_many(self, keys: Sequence[str]) -> list[Entry | None]:
        return self.through("read", lambda: self.inner.get_many(keys))

    def keys(self, directory: str) -> "list[str]":
        return self.through("read", lambda: self.inner.keys(directory))

    def list(self, directory: str) -> "list[Entry]":
        return self.through("read", lambda: self.inner.list(directory))

    def silent_leases(self, leases: Sequence[str]) -> frozenset[str]:
        return self.through("read", lambda: self.inner.silent_leases(leases))

    def sync(self) -> None:
        self.through("read", self.inner.sync)

    def commit(self, conditions: Sequence[Condition], changes: Sequence[Change]) -> Committed | Refused:
        check_commit(self.guarantees, conditions, changes)
        plain = [_on_inner_lease(change) for change in changes]
        return self.through("commit", lambda: self.inner.commit(conditions, plain))

    def lease(self, ttl: float) -> Lease:
        return _Lease(self, self.through("lease", lambda: self.inner.lease(ttl)))

    def watch(self, path: str, notify: Callable[[], None], *, values: bool = True) -> Watch:
        token = object()

        def unless_cut() -> None:
            if self._line.cut is None:
                notify()

        with self._line.lock:
            self._line.muted[token] = notify
        inner = self.inner.watch(path, unless_cut, values=values)
        return _FaultyWatch(inner, lambda: self._line.muted.pop(token, None))

    def close(self) -> None:
        self._line.muted.clear()
        self.inner.close()

    def on_close(self, callback: Callable[[], None]) -> Callable[[], None]:
        return self.inner.on_close(callback)


@final
class _FaultyWatch(Watch):
    def __init__(self, inner: Watch, forget: Callable[[], object]) -> None:
        self._inner = inner
        self._forget = forget

    def close(self) -> None:
        self._forget()
        self._inner.close()


def _on_inner_lease(change: Change) -> Change:
    if isinstance(change, Create) and isinstance(change.lease, _Lease):
        return replace(change, lease=change.lease.inner)
    return change


def _outcome(call: Callable[[], object]) -> object:
    try:
        return call()
    except BackendError as error:
        return error
