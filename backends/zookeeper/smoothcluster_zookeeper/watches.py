"""Watches on top of ZooKeeper's persistent watches, which last as long as the connection.

ZooKeeper watches a path twice: the znode of the key, and the znode of the directory. A watch with values watches the
directory with everything below, so the number of requests does not depend on the number of keys. All watches of a
path share the two ZooKeeper watches.

A new connection has no ZooKeeper watches. So a thread of this module first arms them again and then calls *notify*.
This call reports every change before the arming; the armed watches report every later change. The thread arms in
steps, each with the full timeout, and repeats failed steps only: so any number of watches is armed in the end. kazoo
calls back in the session's thread, where waiting for an answer would block forever: the callback only queues the work.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import final

from kazoo.exceptions import MarshallingError, NoAuthError
from kazoo.protocol.states import EventType

from smoothcluster.backend import Watch
from smoothcluster.errors import BackendClosedError, BackendError, UnavailableError, UsageError
from smoothcluster.lifetime import notify_all
from smoothcluster_zookeeper.connection import Connection
from smoothcluster_zookeeper.driver import Pending
from smoothcluster_zookeeper.errors import NO_AUTH, translate_error
from smoothcluster_zookeeper.kazoo_requests import AddWatch, Failed, MultiRead, RemoveWatches
from smoothcluster_zookeeper.layout import Layout
from smoothcluster_zookeeper.session import Session

_ZOOKEEPER_LOG = logging.getLogger("smoothcluster_zookeeper")

_REARM_PAUSE_SECONDS = 0.2
"""Seconds between two attempts to arm watches after a refusal by the servers."""

_WATCHES_PER_STEP = 50
"""Watches to arm before waiting for the answers. kazoo blocks a thread with more than some 270 unsent requests."""

_NO_PERSISTENT_WATCHES = "the server refuses persistent watches; leave its setting zookeeper.watchManagerName out"


@final
class _PathWatch(Watch):
    """A watch of the key and the directory at *path*."""

    def __init__(self, owner: "Watches", path: str, notify: Callable[[], None], *, values: bool) -> None:
        self._owner = owner
        self.key = owner.layout.key(path)
        self.directory = owner.layout.directory(path)
        self.notify = notify
        self.values = values

    @property
    def znodes(self) -> tuple[str, str]:
        """The znodes of the key and of the directory."""
        return self.key, self.directory

    def concerns(self, kind: str, znode: str) -> bool:
        """Return whether an event of this *kind* at *znode* is relevant to the owner."""
        if znode == self.directory:
            return kind == EventType.CHILD
        # The key itself, or a child of the directory, where the names of further directories are irrelevant.
        if znode != self.key and not self._owner.layout.is_key(znode):
            return False
        return kind in (EventType.CREATED, EventType.DELETED) or (kind == EventType.CHANGED and self.values)

    def close(self) -> None:
        self._owner.remove(self)


@final
class Watches:
    """All watches of a backend."""

    def __init__(self, layout: Layout, connection: Connection) -> None:
        self.layout = layout
        self._connection, self._lifetime = connection, connection.settings.lifetime
        connection.disconnected = self._disconnected
        connection.fired = self._fired
        self._sending = threading.Lock()
        """Held while requests are sent, so that ZooKeeper sees arming and removing in the order of `_armed`. Apart from
        the other lock: the session's thread needs that one for an event before the thread sends the next request."""
        self._lock = threading.Lock()
        self._watches: dict[str, set[_PathWatch]] = {}
        """Watches by the znodes of their key and of their directory."""
        self._armed: dict[str, bool] = {}
        """Znodes that ZooKeeper watches, or is about to, on this connection, and whether with everything below."""
        self.count = 0
        """The number of open watches."""
        self._awaiting: set[_PathWatch] = set()
        """Watches to arm, if necessary, and to notify."""
        self._work = threading.Event()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, path: str, notify: Callable[[], None], *, values: bool) -> Watch:
        """Watch *path* from now on, or from the return of the servers."""
        self._lifetime.check()
        watch = _PathWatch(self, path, notify, values=values)
        with self._lock:
            self._lifetime.check()  # `wake_all` may have taken the watches since.
            # Before arming: the ZooKeeper watch may fire before the answer to the request that arms it has been read,
            # and `_fired` must find the watch then.
            for znode in watch.znodes:
                self._watches.setdefault(znode, set()).add(watch)
            self.count += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="smoothcluster-zookeeper watches", daemon=True)
                self._thread.start()
        deadline = self._connection.settings.deadline()
        try:
            self._arm([watch], deadline)
            self._check_access(watch, deadline)
        except BackendClosedError:
            raise
        except UnavailableError as error:
            if isinstance(error.__cause__, MarshallingError):
                self.remove(watch)
                where = self._connection.settings.hosts
                raise UsageError(f"ZooKeeper at {where}: {_NO_PERSISTENT_WATCHES}") from error
            self._rearm_later(watch.znodes)
        except BaseException:
            self.remove(watch)
            self._rearm_later(watch.znodes)  # Other watches there may rely on the requests of this one.
            raise
        return watch

    def _check_access(self, watch: _PathWatch, deadline: float) -> None:
        """Raise AccessDeniedError if this client may not read the directory. ZooKeeper arms the watch nevertheless."""
        session = self._connection.ready(deadline)
        (found,) = session.wait(session.kazoo.send(MultiRead([watch.directory])), deadline)
        if isinstance(found, Failed) and found.code == NO_AUTH:
            raise translate_error(NoAuthError(), session.settings.hosts)

    def remove(self, watch: _PathWatch) -> None:
        """Stop notifying *watch*, and remove the ZooKeeper watches needed for *watch* alone."""
        if not self._lifetime.in_own_process:
            return  # In a forked child a lock may be held for ever, and the connection is the parent's.
        with self._sending:
            with self._lock:
                self._awaiting.discard(watch)
                self.count -= watch in self._watches.get(watch.key, ())
                unwanted = [znode for znode in watch.znodes if self._remove_at(znode, watch)]
            session = self._connection.live
            if session is not None:
                for znode in unwanted:
                    session.kazoo.send(RemoveWatches(znode))

    def _remove_at(self, znode: str, watch: _PathWatch) -> bool:
        """Forget *watch* at *znode*; return whether no other watch is left there."""
        watches = self._watches.get(znode, set())
        watches.discard(watch)
        if not watches:
            self._watches.pop(znode, None)
            self._armed.pop(znode, None)
        return not watches

    def wake_all(self) -> None:
        """End all watches of a client with an ended lifetime. Wake each watch for the last time."""
        with self._lock:
            ended = {watch for watches in self._watches.values() for watch in watches}
            self._watches.clear()
            self.count = 0
        notify_all(watch.notify for watch in ended)

    def close(self) -> None:
        """End the thread. Call after `wake_all`."""
        self._closed.set()
        self._work.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _disconnected(self) -> None:
        """Arm all watches again later: armed ZooKeeper watches end with the connection."""
        with self._lock:
            znodes = list(self._watches)
        self._rearm_later(znodes)

    def _rearm_later(self, znodes: Iterable[str]) -> None:
        """Have the thread arm *znodes*, and notify every watch there."""
        with self._lock:
            for znode in znodes:
                self._armed.pop(znode, None)
                self._awaiting |= self._watches.get(znode, set())
        self._work.set()

    def _fired(self, kind: str, znode: str) -> None:
        """Note an event of a ZooKeeper watch. The session's thread calls this method."""
        with self._lock:
            for place in (znode, znode.rpartition("/")[0]):
                self._awaiting |= {each for each in self._watches.get(place, ()) if each.concerns(kind, znode)}
        self._work.set()

    def _run(self) -> None:
        while True:
            self._work.wait()
            # Cleared before the other two are read: a watch that fires, or a `close`, after this line sets the event
            # again and leads to another round. Cleared later, the event could get lost.
            self._work.clear()
            if self._closed.is_set():
                return
            with self._lock:
                awaiting, self._awaiting = [*self._awaiting], set()
            for first in range(0, len(awaiting), _WATCHES_PER_STEP):
                self._arm_and_notify(awaiting[first : first + _WATCHES_PER_STEP])

    def _arm_and_notify(self, watches: Sequence[_PathWatch]) -> None:
        try:
            self._arm(watches, self._connection.settings.deadline())
        except BackendError as error:
            _ZOOKEEPER_LOG.debug("cannot arm the watches, and will try again: %s", error)
            self._rearm_later(znode for watch in watches for znode in watch.znodes)
            self._closed.wait(_REARM_PAUSE_SECONDS)
            return
        # After arming: the owner's next read then sees every change from before, and the armed watches report
        # every later change. Notified before, the owner could read first, and a change between the read and the
        # arming would stay unnoticed.
        for watch in watches:
            self._notify(watch)

    def _notify(self, watch: _PathWatch) -> None:
        if watch not in self._watches.get(watch.key, ()):
            return  # Closed while this thread was arming.
        try:
            watch.notify()
        except Exception:  # noqa: BLE001  # The caller's own code failed; still notify the others.
            _ZOOKEEPER_LOG.exception("the notify function of a watch raised an exception")

    def _arm(self, watches: Sequence[_PathWatch], deadline: float) -> None:
        """Have ZooKeeper watch the znodes of *watches*, as far as ZooKeeper does not watch them already."""
        with self._lock:
            if not self._unarmed(watches):
                return
        session = self._connection.for_reading(deadline)
        for pending in self._request_watches(session, watches):
            session.wait(pending, deadline)

    def _request_watches(self, session: Session, watches: Sequence[_PathWatch]) -> list[Pending]:
        # Noted as armed before the answer: ZooKeeper answers a session's requests in order, so a later read of this
        # backend already comes after the arming. If the connection ends in between, `_disconnected` clears the note.
        with self._sending:
            with self._lock:
                unarmed = self._unarmed(watches)
                self._armed |= unarmed
            return [session.kazoo.send(AddWatch(znode, recursive=deep)) for znode, deep in unarmed.items()]

    def _unarmed(self, watches: Iterable[_PathWatch]) -> dict[str, bool]:
        """Return the znodes of *watches* to arm, and whether with everything below. Call with the lock."""
        unarmed: dict[str, bool] = {}
        for watch in watches:
            for znode in watch.znodes:
                deep = watch.values and znode == watch.directory
                if znode not in self._watches:
                    continue  # Closed: nothing may be left on the server.
                if znode not in self._armed or (deep and not self._armed[znode]):
                    unarmed[znode] = deep or unarmed.get(znode, False)
        return unarmed
