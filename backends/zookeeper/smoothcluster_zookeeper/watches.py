"""Persistent watches on top of ZooKeeper's watches, which fire once and die with the connection.

A thread of this module first arms the fired ZooKeeper watches again and then calls *notify*. This call reports
every change before the arming; the armed watches report every later change. If the servers are away, the thread
arms the watches after their return and notifies then. kazoo calls back in the session's thread, where
waiting for an answer would block forever: the callback only queues the work.
"""

import logging
import threading
from collections.abc import Callable, Iterable
from typing import final

from kazoo.exceptions import NoNodeError
from kazoo.protocol.states import EventType

from smoothcluster.backend import Watch
from smoothcluster.errors import BackendError, UnavailableError
from smoothcluster_zookeeper.connection import Connection
from smoothcluster_zookeeper.driver import Event, Pending
from smoothcluster_zookeeper.layout import Layout, sort_names
from smoothcluster_zookeeper.session import Session

_ZOOKEEPER_LOG = logging.getLogger("smoothcluster_zookeeper")

_REARM_PAUSE_SECONDS = 0.2
"""Seconds between two attempts to arm watches after a refusal by the servers."""


@final
class _PathWatch(Watch):
    """A watch of the key and the directory at *path*."""

    def __init__(self, owner: "Watches", path: str, notify: Callable[[], None], *, values: bool) -> None:
        self._owner = owner
        self.key = owner.layout.key(path)
        self.directory = owner.layout.directory(path)
        self.notify = notify
        self.values = values
        self.children: set[str] = set()
        """Keys in the directory with watched values."""
        self.unarmed = {self.key, self.directory}

    def close(self) -> None:
        self._owner.remove(self)

    def mark_unarmed(self) -> None:
        """Note that no ZooKeeper watch is armed."""
        self.children.clear()
        self.unarmed = {self.key, self.directory}


@final
class Watches:
    """All watches of a backend."""

    def __init__(self, layout: Layout, connection: Connection) -> None:
        self.layout = layout
        self._connection = connection
        connection.disconnected = self._disconnected
        self._lock = threading.Lock()
        self._watches: dict[str, set[_PathWatch]] = {}
        """Watches by the znodes of their key and of their directory."""
        self._awaiting: set[_PathWatch] = set()
        """Watches to arm and notify."""
        self._work = threading.Event()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._armed_on: Session | None = None

    def add(self, path: str, notify: Callable[[], None], *, values: bool) -> Watch:
        """Watch *path* from now on, or from the return of the servers."""
        watch = _PathWatch(self, path, notify, values=values)
        with self._lock:
            if self._closed.is_set():
                raise UnavailableError("this client of ZooKeeper is closed")
            # Before arming: the ZooKeeper watch may fire before the answer to the request that arms it has been read,
            # and `_fired` must find the watch then.
            for znode in (watch.key, watch.directory):
                self._watches.setdefault(znode, set()).add(watch)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="smoothcluster-zookeeper watches", daemon=True)
                self._thread.start()
        try:
            self._arm([watch])
        except (UnavailableError, NoNodeError):
            self._rearm_later([watch])
        except BaseException:
            self.remove(watch)
            raise
        return watch

    def remove(self, watch: _PathWatch) -> None:
        """Stop notifying *watch*, and remove ZooKeeper watches armed for *watch* alone, which might never fire.

        A watch on a child fires at the latest when the child is deleted; no removed watch is notified.
        """
        with self._lock:
            self._awaiting.discard(watch)
            unwanted = [znode for znode in (watch.key, watch.directory) if self._remove_at(znode, watch)]
        if self._armed_on is not None:
            self._armed_on.unwatch(unwanted)
        with self._lock:  # A watch added meanwhile may have lost armed watches.
            late = [each for znode in unwanted for each in self._watches.get(znode, ())]
        self._rearm_later(late)

    def _remove_at(self, znode: str, watch: _PathWatch) -> bool:
        watches = self._watches.get(znode, set())
        watches.discard(watch)
        if not watches:
            self._watches.pop(znode, None)
        return not watches

    def close(self) -> None:
        """End all watches and the thread."""
        with self._lock:
            self._closed.set()
            self._watches.clear()
        self._work.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _disconnected(self) -> None:
        """Arm all watches again later: armed ZooKeeper watches end with the connection."""
        with self._lock:
            everyone = {watch for watches in self._watches.values() for watch in watches}
        self._rearm_later(everyone)

    def _rearm_later(self, watches: Iterable[_PathWatch]) -> None:
        """Have the thread arm and notify *watches*."""
        with self._lock:
            for watch in watches:
                watch.mark_unarmed()
                self._awaiting.add(watch)
        self._work.set()

    def _fired(self, event: Event) -> None:
        """Note a fired ZooKeeper watch. kazoo calls this and has already forgotten the watch."""
        if event.type == EventType.NONE:
            return  # The connection is gone; `_disconnected` is called.
        znode = event.path
        with self._lock:
            for watch in self._watches.get(znode, ()):
                watch.unarmed.add(znode)
                self._awaiting.add(watch)
            for watch in self._watches.get(znode.rpartition("/")[0], ()):
                if znode in watch.children:
                    watch.children.discard(znode)
                    if event.type == EventType.CHANGED:
                        watch.unarmed.add(znode)
                    self._awaiting.add(watch)
        self._work.set()

    def _run(self) -> None:
        away = False
        while True:
            self._work.wait()
            # Cleared before the other two are read: a watch that fires, or a `close`, after this line sets the event
            # again and leads to another round. Cleared later, the event could get lost.
            self._work.clear()
            if self._closed.is_set():
                return
            with self._lock:
                watches, self._awaiting = self._awaiting, set()
            try:
                self._arm(watches)
            except (BackendError, NoNodeError) as error:
                if not away:  # Once per outage: the members themselves report a long outage every minute.
                    _ZOOKEEPER_LOG.info("cannot arm the watches, and will try again: %s", error)
                away = True
                self._rearm_later(watches)
                self._closed.wait(_REARM_PAUSE_SECONDS)
                continue
            away = False
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

    def _arm(self, watches: Iterable[_PathWatch]) -> None:
        """Arm all unarmed znodes of *watches*."""
        deadline = self._connection.settings.deadline()
        session = self._armed_on = self._connection.for_reading(deadline)
        asked = [(watch, znode, self._request_watch(session, watch, znode)) for watch, znode in self._unarmed(watches)]
        children: list[Pending] = []
        for watch, znode, pending in asked:
            if znode == watch.directory:
                names = self._listing(session, znode, pending, deadline)
                children += self._arm_children(session, watch, names)
            else:
                session.wait(pending, deadline)
        for pending in children:
            session.wait(pending, deadline)

    def _unarmed(self, watches: Iterable[_PathWatch]) -> list[tuple[_PathWatch, str]]:
        """Return the znodes to arm, already noted as armed.

        ZooKeeper may fire a watch as soon as it is armed, in the session's thread. `_fired` then notes the znode as
        unarmed again. If this thread noted "armed" only after the answer, the note would overwrite the news.
        """
        wanted: list[tuple[_PathWatch, str]] = []
        with self._lock:
            for watch in watches:
                wanted += [(watch, znode) for znode in watch.unarmed]
                watch.children |= watch.unarmed - {watch.key, watch.directory}
                watch.unarmed = set()
        return wanted

    def _request_watch(self, session: Session, watch: _PathWatch, znode: str) -> Pending:
        if znode == watch.directory:
            return session.kazoo.children(znode, self._fired)
        return session.kazoo.exists(znode, self._fired)

    def _listing(self, session: Session, znode: str, pending: Pending, deadline: float) -> list[str]:
        """Return the names in a directory, watched from now on whether present or not."""
        while True:
            try:
                names: list[str] = session.wait(pending, deadline)
            except NoNodeError:
                if session.wait(session.kazoo.exists(znode, self._fired), deadline) is None:
                    return []
                # Another client created the directory between the two answers: list again.
                pending = session.kazoo.children(znode, self._fired)
            else:
                return names

    def _arm_children(self, session: Session, watch: _PathWatch, names: list[str]) -> list[Pending]:
        """Watch the values of new keys. A deleted key fires its own watch."""
        if not watch.values:
            return []
        here = {self.layout.key_in(watch.directory, name) for name in sort_names(names)[0]}
        with self._lock:
            new = here - watch.children
            watch.children |= new
        return [session.kazoo.exists(znode, self._fired) for znode in new]
