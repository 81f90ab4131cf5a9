"""The `MemoryServer`'s side of the connection to each client."""

import asyncio
import logging
from functools import partial
from typing import final

from smoothcluster.backend import Refused, Watch
from smoothcluster.errors import LeaseLostError, MisplacedKeyError
from smoothcluster.memory.backend import MemoryBackend, MemoryLease
from smoothcluster.memory.store import Granted, MemoryStore
from smoothcluster.memory.wire import Frame, Frames, frame, heard_change, heard_condition, page

_log = logging.getLogger(__name__)


@final
class Client(asyncio.BufferedProtocol):
    """The connection to a client of *store*. All methods run in the server's thread."""

    _heard = memoryview(bytearray(65_536))
    """The read buffer shared by all connections. Allocating a buffer for each read, as a plain Protocol does,
    takes longer than a commit."""

    def __init__(self, store: MemoryStore, connected: set["Client"]) -> None:
        self._store, self._connected = store, connected
        self._backend = MemoryBackend(store)
        self._frames = Frames()
        self._orders: dict[int, Watch] = {}
        self._owed: dict[int, None] = {}
        self._listens = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._connected.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio calls it so
        self._connected.discard(self)
        self._backend.close()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  # asyncio calls it so
        return self._heard

    def buffer_updated(self, nbytes: int) -> None:
        try:
            for got in self._frames.feed(self._heard[:nbytes]):
                self._transport.write(self._answer(got))
        except (LookupError, RecursionError, TypeError, ValueError) as error:
            _log.warning("a client sent a malformed request, so the server closed the connection: %r", error)
            self.hang_up()

    def pause_writing(self) -> None:
        """Stop reading requests while the client does not read the answers; the server merges wake-ups meanwhile."""
        self._listens = False
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._listens = True
        self._transport.resume_reading()
        self._pay()

    def hang_up(self) -> None:
        """End the connection now."""
        self._transport.abort()

    def _answer(self, got: Frame) -> bytes:
        match got.words:
            case ["commit", str() | None as lease, conditions, changes, str() | None as directory]:
                outcome = self._commit(got, lease, conditions, changes)
                rows, values, others = self._list(directory)
                return frame([*outcome, rows, others], values)
            case ["get", keys]:
                rows, values = page(self._backend.get_many(keys))
                return frame([rows], values)
            case ["list", str(directory)]:
                rows, values, others = self._list(directory)
                return frame([rows, others], values)
            case ["keys", str(directory)]:
                return frame([self._backend.keys(directory)])
            case ["watch", orders]:
                return self._watch(orders)
            case ["unwatch", int(number)]:
                self._orders.pop(number).close()
                return b""
            case words:
                return frame(self._of_leases(words))

    def _commit(
        self, got: Frame, name: str | None, conditions: list[object], changes: list[object]
    ) -> tuple[object, ...]:
        # The store identifies a lease by the name alone.
        lease = None if name is None else MemoryLease(self._backend, Granted(name, 0.0, 0.0, set()))
        try:
            outcome = self._backend.commit(
                [heard_condition(each) for each in conditions], [heard_change(each, got, lease) for each in changes]
            )
        except LeaseLostError:
            return "lost", name
        except MisplacedKeyError as error:
            return "misplaced", [error.key, error.what]
        return ("refused", outcome.key) if isinstance(outcome, Refused) else ("done", outcome.versions)

    def _list(self, directory: str | None) -> tuple[list[object], list[bytes], list[str]]:
        found = self._backend.list(directory) if directory else []
        rows, values = page(found)
        return rows, values, [entry.key for entry in found[len(rows) :]]

    def _of_leases(self, words: list[object]) -> list[object]:
        match words:
            case ["grant", int() | float() as ttl]:
                granted = self._store.grant(ttl)
                return [granted.id, granted.ttl]
            case ["renew", str(lease)]:
                return [self._store.renew(lease)]
            case ["end", str(lease)]:
                self._store.end(lease)
                return []
            case ["history"]:
                return [self._store.history]
            case _:
                raise ValueError("the request is of an unknown kind")

    def _watch(self, orders: list[tuple[int, str, bool]]) -> bytes:
        for number, path, values in orders:
            self._orders[number] = self._backend.watch(path, partial(self._wake, number), values=values)
            self._owed[number] = None  # The first message about an order confirms the order.
        self._pay()
        return b""

    def _wake(self, number: int) -> None:
        self._owed[number] = None
        self._pay()

    def _pay(self) -> None:
        if self._owed and self._listens:
            owed, self._owed = self._owed, {}
            self._transport.write(frame([*owed]))
