"""All watches of a backend, on a single stream. The backend reopens a lost stream while watches exist.

No caller waits for a watch to be armed. Each watch begins after the latest revision seen by this backend,
however late the request reaches etcd, so the watch covers every change missed by a later read. After a lost
stream each watch resumes after the last change received. If etcd has compacted those revisions, or has ended
the watch for another reason, the backend notifies the owner, and the owner reads again.

After a rollback of the store (`smoothcluster.timeline`) no revision noted before has a meaning: a watch from such a
revision on would report nothing until the store has made as many changes again. So all watches start from the
store's present revision, on a new stream, and the backend notifies all owners.
"""

import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, final

import grpc
from etcd3 import etcdrpc

from smoothcluster.backend import Watch
from smoothcluster.clock import SYSTEM_CLOCK
from smoothcluster.errors import BackendError
from smoothcluster.lifetime import notify_all
from smoothcluster_etcd.connection import Connection, Server
from smoothcluster_etcd.errors import is_refusal
from smoothcluster_etcd.layout import below, range_end

_rpc: Any = etcdrpc

_SHORTEST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.02, 1.0
"""Shortest and longest delay in seconds before reopening a lost stream. The delay doubles after each failure."""


@final
class EtcdWatch(Watch):
    """Watch of the key at *key* and of the keys directly below, from revision *since* on; 0 if none is known."""

    def __init__(self, owner: "Watches", key: bytes, notify: Callable[[], None], since: int, *, values: bool) -> None:
        self.notify = notify
        self.since = since
        self.key = key
        self._owner = owner
        self._values = values

    def request(self) -> Any:
        """Return the request to create the watch."""
        create = _rpc.WatchCreateRequest(key=self.key, range_end=range_end(self.key), start_revision=self.since)
        return _rpc.WatchRequest(create_request=create)

    def concerns(self, event: Any) -> bool:
        """Return whether *event* is relevant to the watch's owner."""
        name = below(self.key, event.kv.key)
        if event.kv.key != self.key and not (name and name[1]):
            return False
        came_or_went = event.type == event.DELETE or event.kv.create_revision == event.kv.mod_revision
        return self._values or came_or_went

    def close(self) -> None:
        self._owner.remove(self)


class _RefusedError(Exception):
    """etcd ended a watch: the token has expired, or the user lacks permission to read here."""


@final
class _Stream:
    """An open stream: the watches requested but not yet confirmed, and the confirmed watches by etcd's number."""

    def __init__(self) -> None:
        self.call: Any = None
        self.server: Server | None = None
        self.outdated = False
        """Whether the answers may come from a store before a rollback."""
        self.requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._arming: deque[EtcdWatch] = deque()
        self._armed: dict[int, EtcdWatch] = {}

    def arm(self, watch: EtcdWatch) -> None:
        """Ask for *watch*. etcd answers in order."""
        self._arming.append(watch)
        self.requests.put(watch.request())

    def disarm(self, number: int) -> None:
        """Cancel the watch with this number in etcd."""
        if self._armed.pop(number, None):
            self.requests.put(_rpc.WatchRequest(cancel_request=_rpc.WatchCancelRequest(watch_id=number)))

    def number_of(self, watch: EtcdWatch) -> int:
        """Return etcd's number of *watch*; -1 if not yet confirmed."""
        return next((number for number, armed in self._armed.items() if armed is watch), -1)

    def watch_of(self, answer: Any) -> EtcdWatch | None:
        """Return the watch to which *answer* belongs; None if no longer armed."""
        if answer.created:
            # A refused watch has no number, or the number of another watch.
            watch = self._arming.popleft()
            if not answer.canceled:
                self._armed[answer.watch_id] = watch
            return watch
        return self._armed.pop(answer.watch_id, None) if answer.canceled else self._armed.get(answer.watch_id)


@final
class Watches:
    """Every watch of a backend."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        connection.on_failed = self._on_failed
        connection.timeline.on_rollback = self._on_rollback
        self._lock = threading.Lock()
        self._watches: set[EtcdWatch] = set()
        self._stream = _Stream()
        self._thread: threading.Thread | None = None
        self._closing = SYSTEM_CLOCK.signal()

    @property
    def count(self) -> int:
        """The number of open watches."""
        return len(self._watches)

    def add(self, key: bytes, notify: Callable[[], None], *, values: bool) -> EtcdWatch:
        """Watch from now on."""
        self._connection.lifetime.check()
        with self._lock:
            self._connection.lifetime.check()  # `close` may have taken the watches since, to wake them.
            # The latest revision that any read of this backend can have shown. etcd reports every later change, even
            # changes from before the arrival of the request. Without a known revision, the first answer wakes the
            # owner. Read under the lock: either this is a revision after a rollback, or `_on_rollback` finds the watch.
            revision = self._connection.timeline.position
            watch = EtcdWatch(self, key, notify, revision + 1 if revision else 0, values=values)
            self._watches.add(watch)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="smoothcluster-etcd-watches", daemon=True)
                self._thread.start()
            elif self._stream.call is not None:
                self._stream.arm(watch)
            # Otherwise the thread is about to open a stream, and arms every watch found then.
        return watch

    def remove(self, watch: EtcdWatch) -> None:
        """Watch no longer."""
        if not self._connection.lifetime.in_own_process:
            return  # In a forked child the lock may be held for ever.
        with self._lock:
            self._watches.discard(watch)
            self._stream.disarm(self._stream.number_of(watch))

    def close(self) -> None:
        """End the stream, the connection under the stream, and their threads, after the end of the client's lifetime.

        Wake each watch for the last time. Repeatable.
        """
        with self._lock:
            self._closing.set()
            watches, self._watches = self._watches, set()
        notify_all(watch.notify for watch in watches)
        self._end_stream(self._stream)
        self._connection.close()
        if self._thread is not None:
            self._thread.join()

    def _on_failed(self, server: Server) -> None:
        if self._stream.server is server:
            self._end_stream(self._stream)

    def _on_rollback(self) -> None:
        """Have the thread arm every watch again, from the store's present revision on, and notify every owner."""
        with self._lock:
            for watch in self._watches:
                watch.since = 0
            stream = self._stream
            stream.outdated = True
        self._end_stream(stream)

    @staticmethod
    def _end_stream(stream: _Stream) -> None:
        stream.requests.put(None)
        call = stream.call
        if call is not None:
            call.cancel()

    def _run(self) -> None:
        pause = _SHORTEST_PAUSE_SECONDS
        while not self._closing.is_set():
            pause = _SHORTEST_PAUSE_SECONDS if self._follow_stream() else min(pause * 2, _LONGEST_PAUSE_SECONDS)
            self._closing.wait(pause)

    def _follow_stream(self) -> bool:
        """Open a stream and read to the end; return whether any answer arrived and etcd refused no watch."""
        stream, heard = _Stream(), False
        try:
            self._open(stream)
            for answer in stream.call:
                heard = True
                self._process(stream, answer)
        except _RefusedError:
            self._connection.forget_token()
            heard = False
        except grpc.RpcError as error:
            if stream.server is not None and not stream.outdated and not is_refusal(error):
                self._connection.mark_failed(stream.server)
            error.__traceback__ = None  # The error is the call itself: a reference cycle.
        except (BackendError, ValueError):  # gRPC raises ValueError where a channel is closed.
            pass
        self._end_stream(stream)
        # Free the call with the last reference here, not at interpreter exit: the destructor takes a lock, and a gRPC
        # thread may have been stopped while holding the lock.
        stream.call = None
        return heard

    def _open(self, stream: _Stream) -> None:
        deadline = self._connection.deadline()
        stream.server = self._connection.ready(deadline)
        metadata = self._connection.metadata(stream.server, deadline)
        # Both under the lock: a watch added before is armed here, and a watch added after by `add` on this stream.
        with self._lock:
            for watch in self._watches:
                stream.arm(watch)
            stream.call = stream.server.watch(iter(stream.requests.get, None), metadata=metadata)
            self._stream = stream
        # `close` may have run before this stream was published, and then has ended only the former stream.
        if self._closing.is_set():
            stream.call.cancel()

    def _process(self, stream: _Stream, answer: Any) -> None:
        with self._lock:
            if stream.outdated:
                return
            watch = stream.watch_of(answer)
            # Closed while the request was under way: etcd has armed the watch meanwhile.
            if watch not in self._watches:
                if not answer.canceled:
                    stream.disarm(answer.watch_id)
                return
            # Armed in the future: the store is older than before, or this server is behind. A read shows which.
            ahead = answer.created and not answer.canceled and watch.since > answer.header.revision + 1
            wake = answer.canceled or not watch.since or any(map(watch.concerns, answer.events))
            if answer.events:
                watch.since = answer.events[-1].kv.mod_revision + 1
            elif not watch.since:
                watch.since = answer.header.revision + 1
            elif answer.compact_revision:
                watch.since = answer.compact_revision
                stream.arm(watch)
        if wake:
            watch.notify()
        if ahead:
            self._connection.term(self._connection.deadline())
        if answer.canceled and not answer.compact_revision:
            raise _RefusedError(answer.cancel_reason)
