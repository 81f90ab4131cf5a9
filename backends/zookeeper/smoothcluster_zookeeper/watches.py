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

_LOG = logging.getLogger("smoothcluster_zookeeper")

_PAUSE = 0.2
"""Seconds between two attempts to arm watches after a refusal by the servers."""


@final
class _Order(Watch):
    def __init__(self, watches: "Watches", path: str, notify: Callable[[], None], *, values: bool) -> None:
        self._watches = watches
        self.key = watches.layout.key(path)
        self.directory = watches.layout.directory(path)
        self.notify = notify
        self.values = values
        self.children: set[str] = set()
        """Keys in the directory with watched values."""
        self.unarmed = {self.key, self.directory}

    def close(self) -> None:
        self._watches.remove(self)

    def forget(self) -> None:
        """Mark everything as unarmed."""
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
        self._orders: dict[str, set[_Order]] = {}
        """Watches by the znodes of their key and of their directory."""
        self._awaiting: set[_Order] = set()
        """Watches to arm and notify."""
        self._work = threading.Event()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._armed_on: Session | None = None

    def add(self, path: str, notify: Callable[[], None], *, values: bool) -> Watch:
        """Watch *path* from now on, or from the return of the servers."""
        order = _Order(self, path, notify, values=values)
        with self._lock:
            if self._closed.is_set():
                raise UnavailableError("closed")
            for znode in (order.key, order.directory):
                self._orders.setdefault(znode, set()).add(order)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="smoothcluster-zookeeper watches", daemon=True)
                self._thread.start()
        try:
            self._arm([order])
        except (UnavailableError, NoNodeError):
            self._put_off([order])
        except BaseException:
            self.remove(order)
            raise
        return order

    def remove(self, order: _Order) -> None:
        """Stop notifying *order*, and remove ZooKeeper watches armed for *order* alone, which might never fire.

        A watch on a child fires at the latest when the child is deleted; no removed watch is notified.
        """
        with self._lock:
            self._awaiting.discard(order)
            unwanted = [znode for znode in (order.key, order.directory) if self._leave(znode, order)]
        if self._armed_on is not None:
            self._armed_on.unwatch(unwanted)
        with self._lock:  # A watch added meanwhile may have lost armed watches.
            late = [each for znode in unwanted for each in self._orders.get(znode, ())]
        self._put_off(late)

    def _leave(self, znode: str, order: _Order) -> bool:
        orders = self._orders.get(znode, set())
        orders.discard(order)
        if not orders:
            self._orders.pop(znode, None)
        return not orders

    def close(self) -> None:
        """End all watches and the thread."""
        with self._lock:
            self._closed.set()
            self._orders.clear()
        self._work.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _disconnected(self) -> None:
        """Put all watches off: the lost connection has taken every armed watch."""
        with self._lock:
            everyone = {order for orders in self._orders.values() for order in orders}
        self._put_off(everyone)

    def _put_off(self, orders: Iterable[_Order]) -> None:
        with self._lock:
            for order in orders:
                order.forget()
                self._awaiting.add(order)
        self._work.set()

    def _fired(self, event: Event) -> None:
        """Note a fired ZooKeeper watch. kazoo calls this and has already forgotten the watch."""
        if event.type == EventType.NONE:
            return  # The connection is gone; `_disconnected` is called.
        znode = event.path
        with self._lock:
            for order in self._orders.get(znode, ()):
                order.unarmed.add(znode)
                self._awaiting.add(order)
            for order in self._orders.get(znode.rpartition("/")[0], ()):
                if znode in order.children:
                    order.children.discard(znode)
                    if event.type == EventType.CHANGED:
                        order.unarmed.add(znode)
                    self._awaiting.add(order)
        self._work.set()

    def _run(self) -> None:
        while True:
            self._work.wait()
            self._work.clear()
            if self._closed.is_set():
                return
            with self._lock:
                orders, self._awaiting = self._awaiting, set()
            try:
                self._arm(orders)
            except (BackendError, NoNodeError) as error:
                _LOG.info("watches are not armed: %s", error)
                self._put_off(orders)
                self._closed.wait(_PAUSE)
                continue
            for order in orders:
                self._notify(order)

    def _notify(self, order: _Order) -> None:
        if order not in self._orders.get(order.key, ()):
            return
        try:
            order.notify()
        except Exception:  # noqa: BLE001  # The caller's own code failed; still notify the others.
            _LOG.exception("a watch's notify failed")

    def _arm(self, orders: Iterable[_Order]) -> None:
        """Arm all unarmed znodes of *orders*."""
        deadline = self._connection.settings.deadline()
        session = self._armed_on = self._connection.for_reading(deadline)
        asked = [(order, znode, self._ask(session, order, znode)) for order, znode in self._unarmed(orders)]
        children: list[Pending] = []
        for order, znode, pending in asked:
            if znode == order.directory:
                names = self._listing(session, znode, pending, deadline)
                children += self._arm_children(session, order, names)
            else:
                session.wait(pending, deadline)
        for pending in children:
            session.wait(pending, deadline)

    def _unarmed(self, orders: Iterable[_Order]) -> list[tuple[_Order, str]]:
        """Return the znodes to arm, already noted as armed, so that each may fire from the moment of arming on."""
        wanted: list[tuple[_Order, str]] = []
        with self._lock:
            for order in orders:
                wanted += [(order, znode) for znode in order.unarmed]
                order.children |= order.unarmed - {order.key, order.directory}
                order.unarmed = set()
        return wanted

    def _ask(self, session: Session, order: _Order, znode: str) -> Pending:
        if znode == order.directory:
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
                pending = session.kazoo.children(znode, self._fired)
            else:
                return names

    def _arm_children(self, session: Session, order: _Order, names: list[str]) -> list[Pending]:
        """Watch the values of new keys. A deleted key fires its own watch."""
        if not order.values:
            return []
        here = {self.layout.key_in(order.directory, name) for name in sort_names(names)[0]}
        with self._lock:
            new = here - order.children
            order.children |= new
        return [session.kazoo.exists(znode, self._fired) for znode in new]
