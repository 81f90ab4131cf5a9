"""The `MemoryServer`'s side of the connection to each client."""

import asyncio
import logging
from functools import partial
from typing import final

from smoothcluster.backend import Refused, Watch
from smoothcluster.errors import LeaseLostError, MisplacedKeyError
from smoothcluster.memory.backend import MemoryBackend, MemoryLease
from smoothcluster.memory.store import LeaseRecord, MemoryStore
from smoothcluster.memory.wire import Frame, FrameReader, decode_change, decode_condition, encode_page, frame

_log = logging.getLogger(__name__)


@final
class ServedClient(asyncio.BufferedProtocol):
    """The connection to a client of *store*. All methods run in the server's thread."""

    _buffer = memoryview(bytearray(65_536))
    """The read buffer shared by all connections. Allocating a buffer for each read, as a plain Protocol does,
    takes longer than a commit."""

    def __init__(self, store: MemoryStore, connected: set["ServedClient"]) -> None:
        self._store, self._connected = store, connected
        self._backend = MemoryBackend(store)
        self._frames = FrameReader()
        self._watches: dict[int, Watch] = {}
        self._unsent_wakeups: dict[int, None] = {}
        self._is_reading = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._connected.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio calls it so
        self._connected.discard(self)
        self._is_reading = False  # First: the close wakes all watches, and nobody hears of the wake-ups any more.
        self._backend.close()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  # asyncio calls it so
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        try:
            for got in self._frames.feed(self._buffer[:nbytes]):
                self._transport.write(self._answer(got))
        except (LookupError, RecursionError, TypeError, ValueError) as error:
            _log.warning("a client sent a malformed request, so the server closed the connection: %r", error)
            self.abort()

    def pause_writing(self) -> None:
        """Stop reading requests while the client does not read the answers; the server merges wake-ups meanwhile."""
        self._is_reading = False
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._is_reading = True
        self._transport.resume_reading()
        self._send_wakeups()

    def abort(self) -> None:
        """End the connection now."""
        self._transport.abort()

    def _answer(self, got: Frame) -> bytes:
        match got.words:
            case ["commit", str() | None as lease, conditions, changes, str() | None as directory]:
                outcome = self._commit(got, lease, conditions, changes)
                rows, values, others = self._list(directory)
                return frame([*outcome, rows, others], values)
            case ["get", keys]:
                rows, values = encode_page(self._backend.get_many(keys))
                return frame([rows], values)
            case ["list", str(directory)]:
                rows, values, others = self._list(directory)
                return frame([rows, others], values)
            case ["keys", str(directory)]:
                return frame([self._backend.keys(directory)])
            case ["watch", watches]:
                return self._watch(watches)
            case ["unwatch", int(number)]:
                self._watches.pop(number).close()
                return b""
            case words:
                return frame(self._answer_about_leases(words))

    def _commit(
        self, got: Frame, name: str | None, conditions: list[object], changes: list[object]
    ) -> tuple[object, ...]:
        # The store identifies a lease by the name alone.
        lease = None if name is None else MemoryLease(self._backend, LeaseRecord(name, 0.0, 0.0, set()))
        try:
            outcome = self._backend.commit(
                [decode_condition(each) for each in conditions], [decode_change(each, got, lease) for each in changes]
            )
        except LeaseLostError:
            return "lost", name
        except MisplacedKeyError as error:
            return "misplaced", [error.key, error.what]
        return ("refused", outcome.key) if isinstance(outcome, Refused) else ("done", outcome.versions)

    def _list(self, directory: str | None) -> tuple[list[object], list[bytes], list[str]]:
        found = self._backend.list(directory) if directory else []
        rows, values = encode_page(found)
        return rows, values, [entry.key for entry in found[len(rows) :]]

    def _answer_about_leases(self, words: list[object]) -> list[object]:
        match words:
            case ["grant", int() | float() as ttl]:
                granted = self._store.grant(ttl)
                return [granted.id, granted.ttl]
            case ["renew", str(lease)]:
                return [self._store.renew(lease)]
            case ["silent", *leases]:
                return [[*self._store.silent_leases(map(str, leases))]]
            case ["end", str(lease)]:
                self._store.end(lease)
                return []
            case ["history"]:
                return [self._store.history]
            case _:
                raise ValueError("the request is of an unknown kind")

    def _watch(self, watches: list[tuple[int, str, bool]]) -> bytes:
        for number, path, values in watches:
            self._watches[number] = self._backend.watch(path, partial(self._wake, number), values=values)
            self._unsent_wakeups[number] = None  # The first message about a watch confirms the watch.
        self._send_wakeups()
        return b""

    def _wake(self, number: int) -> None:
        self._unsent_wakeups[number] = None
        self._send_wakeups()

    def _send_wakeups(self) -> None:
        if self._unsent_wakeups and self._is_reading:
            numbers, self._unsent_wakeups = self._unsent_wakeups, {}
            self._transport.write(frame([*numbers]))
