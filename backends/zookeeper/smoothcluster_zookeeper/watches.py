"""Standing orders on top of ZooKeeper's watches, which fire once and die with the connection.

What a watch rests on is armed again first and *notify* called after, in a thread of our own: a
change before that is reported by this call, one after it by what was armed. What could not be
armed in time is armed when the servers are back, and reported then. kazoo calls back in its
session's thread, where nothing may be asked of it: that only notes what is to be done.
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
"""Seconds between two attempts to arm what the servers refuse."""


@final
class _Order(Watch):
    def __init__(self, watches: "Watches", path: str, notify: Callable[[], None], *, values: bool) -> None:
        self._watches = watches
        self.key = watches.layout.key(path)
        self.directory = watches.layout.directory(path)
        self.notify = notify
        self.values = values
        self.children: set[str] = set()
        """Keys in the directory whose values are watched."""
        self.unarmed = {self.key, self.directory}

    def close(self) -> None:
        self._watches.remove(self)

    def forget(self) -> None:
        """Nothing is armed any more."""
        self.children.clear()
        self.unarmed = {self.key, self.directory}


@final
class Watches:
    """All watches of one backend."""

    def __init__(self, layout: Layout, connection: Connection) -> None:
        self.layout = layout
        self._connection = connection
        connection.disconnected = self._disconnected
        self._lock = threading.Lock()
        self._orders: dict[str, set[_Order]] = {}
        """By the znodes of their key and of their directory."""
        self._awaiting: set[_Order] = set()
        """Those to arm and wake."""
        self._work = threading.Event()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._armed_on: Session | None = None

    def add(self, path: str, notify: Callable[[], None], *, values: bool) -> Watch:
        """Watch *path* from now on. If the servers are away, once they are back."""
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
        """Wake *order* no more, and take back what it alone had armed and might never fire.

        A watch on a child fires at last when the child goes; who is interested no more is not told.
        """
        with self._lock:
            self._awaiting.discard(order)
            unwanted = [znode for znode in (order.key, order.directory) if self._leave(znode, order)]
        if self._armed_on is not None:
            self._armed_on.unwatch(unwanted)
        with self._lock:  # Whoever came meanwhile may have lost what they armed.
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
        """All that was armed is gone with the connection."""
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
        """Called by kazoo, which forgot the watch."""
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
        except Exception:  # noqa: BLE001  # It is the caller's own code, and the others are to be woken too.
            _LOG.exception("a watch's notify failed")

    def _arm(self, orders: Iterable[_Order]) -> None:
        """Arm whatever *orders* have unarmed."""
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
        """What is to be armed. Noted as armed before it is, so that it may fire at any moment from then on."""
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
        """The names in a directory, which is watched now, be it there or not."""
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
        """Watch the values of keys that are new. One that goes says so by itself."""
        if not order.values:
            return []
        here = {self.layout.key_in(order.directory, name) for name in sort_names(names)[0]}
        with self._lock:
            new = here - order.children
            order.children |= new
        return [session.kazoo.exists(znode, self._fired) for znode in new]
