"""Find the server that holds the store, and keep connections to the server."""

import logging
import os
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, final

from redis.exceptions import MovedError, RedisError, ResponseError

from smoothcluster.clock import SYSTEM_CLOCK
from smoothcluster.errors import AccessDeniedError, BackendError, UnavailableError
from smoothcluster_redis.address import Address, written
from smoothcluster_redis.connection import Link, left
from smoothcluster_redis.errors import ELSEWHERE, code, translate, unreachable

_LOG = logging.getLogger("smoothcluster_redis")

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Access:
    """The addresses and credentials of a client, and the state shared by all parts of the client."""

    address: Address
    timeout: float
    tls: ssl.SSLContext | None
    credentials: Mapping[str, Any] = field(repr=False)
    sentinel_credentials: Mapping[str, Any] = field(repr=False)
    lock: threading.Lock = field(default_factory=threading.Lock)
    warned_of: set[tuple[str, int]] = field(default_factory=set[tuple[str, int]])
    closed: threading.Event = field(default_factory=threading.Event)


@final
class Servers:
    """The server that holds a part of the store. Each command takes an idle connection, or opens a connection.

    A part holds the keys of *group*, or, without a group, all keys of no group. On a Redis Cluster each part may be on
    another node. Each part has a separate history, to be checked on every new connection: so parts share no connection.
    """

    def __init__(self, access: Access, group: str | None = None) -> None:
        namespace = access.address.namespace
        self.access = access
        self.address = access.address
        self.timeout = access.timeout
        self.prefix = f"{{{namespace if group is None else f'{namespace}/{group}'}}}:"
        """The prefix of every Redis key. The braces put all keys into the same slot of a Redis Cluster."""
        self._lock = threading.Lock()
        self._idle: list[Link] = []
        self._owner = os.getpid()
        self._last: tuple[str, int] | None = None

    def run(self, act: str, words: Sequence[Any] = (), unknown: type[BackendError] = UnavailableError) -> Any:
        """Have the script do *act*. Raise *unknown* if the script may have done so despite an error."""
        return self._with_link(lambda link, deadline: link.run(deadline, self.prefix, act, words), unknown)

    def history(self) -> str:
        """Return the store's current history, after a check of the server's identity."""

        def look(link: Link, deadline: float) -> str:
            link.identify(deadline, self.prefix, "tick")
            return link.history

        return self._with_link(look, UnavailableError)

    def _with_link(self, ask: Callable[[Link, float], Answer], unknown: type[BackendError]) -> Answer:
        deadline = SYSTEM_CLOCK.monotonic() + self.timeout
        link = self._take(deadline)
        try:
            answer = ask(link, deadline)
        except RedisError as error:
            if not isinstance(error, ResponseError) or code(error) in ELSEWHERE:
                raise self.failed(link, error, unknown) from error
            self._give_back(link)
            raise translate(error, self.address.where, unknown) from error
        except BaseException:
            link.close()
            raise
        self._give_back(link)
        return answer

    def failed(self, link: Link, error: RedisError, unknown: type[BackendError] = UnavailableError) -> BackendError:
        """Translate *error*, raised on *link*, and drop all idle connections: the next command finds the store anew."""
        translated = translate(error, self.address.where, unknown)
        link.close()
        self._drop()
        if isinstance(error, MovedError):
            self._last = _target(error)
        return translated

    def connect(self, deadline: float) -> Link:
        """Open a connection to the server that holds the store."""
        said: list[object] = []
        for tried, (host, port) in enumerate(self._candidates(deadline, said)):
            try:
                return self._follow(host, port, left(deadline) / max(1, len(self.address.hosts) - tried))
            except (RedisError, OSError) as error:
                said.append(_problem(error, host, port))
        raise unreachable(self.address.where, self.timeout, said[-1] if said else None, tls=self.access.tls is not None)

    def close(self) -> None:
        """Close all idle connections now, and those in use, here and in other parts, when they are given back."""
        self.access.closed.set()
        self._drop()

    def _candidates(self, deadline: float, said: list[object]) -> Iterator[tuple[str, int]]:
        """Yield the addresses where the store may be, likeliest first. Add the failures of Sentinels to *said*."""
        if self.address.service is None:
            last = self._last
            yield from [last] if last else []
            yield from (host for host in self.address.hosts if host != last)
            return
        for number, (host, port) in enumerate(self.address.hosts):
            share = left(deadline) / (len(self.address.hosts) - number + 1)
            try:
                found = self._ask_sentinel(host, port, share)
            except (RedisError, OSError) as error:
                said.append(_problem(error, host, port))
                continue
            if found:
                yield found
            else:
                said.append(f"the Sentinel at {written(host, port)} knows no service {self.address.service!r}")

    def _ask_sentinel(self, host: str, port: int, timeout: float) -> tuple[str, int] | None:
        link = Link(host, port, timeout, self.access.tls, **self.access.sentinel_credentials)
        try:
            deadline = SYSTEM_CLOCK.monotonic() + timeout
            found = link.ask(deadline, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.address.service)
            return (found[0].decode(), int(found[1])) if found else None
        finally:
            link.close()

    def _follow(self, host: str, port: int, timeout: float) -> Link:
        """Connect to this server, or to the node of the cluster to which this server redirects."""
        try:
            return self._open(host, port, timeout)
        except MovedError as moved:
            return self._open(*_target(moved), timeout)

    def _open(self, host: str, port: int, timeout: float) -> Link:
        deadline = SYSTEM_CLOCK.monotonic() + timeout
        link = Link(host, port, timeout, self.access.tls, db=self.address.db, **self.access.credentials)
        try:
            link.identify(deadline, self.prefix, "hello")
            with self.access.lock:
                new = (host, port) not in self.access.warned_of
                self.access.warned_of.add((host, port))
            if new:
                _warn(link, deadline, written(host, port))
        except BaseException:
            link.close()
            raise
        self._last = (host, port)
        return link

    def _take(self, deadline: float) -> Link:
        with self._lock:
            if self.access.closed.is_set():
                raise UnavailableError("closed")
            if self._owner != os.getpid():  # A forked child must not use the connections of the parent.
                self._owner, self._idle = os.getpid(), []
            link = self._idle.pop() if self._idle else None
        if link is not None and not link.stale:
            return link
        if link is not None:
            link.close()
            self._drop()
        return self.connect(deadline)

    def _give_back(self, link: Link) -> None:
        with self._lock:
            if not self.access.closed.is_set():
                self._idle.append(link)
                return
        link.close()

    def _drop(self) -> None:
        """Close all idle connections: the failure of a connection has most likely hit the others, too."""
        with self._lock:
            links, self._idle = self._idle, []
        for link in links:
            link.close()


def _warn(link: Link, deadline: float, where: str) -> None:
    """Log a warning if the server has no persistence, or may evict keys of the store."""
    try:
        words = [link.ask(deadline, "CONFIG", "GET", name) for name in ("appendonly", "save", "maxmemory-policy")]
    except ResponseError:
        return  # CONFIG is not permitted, as on most hosted servers.
    appendonly, save, policy = (pair[1] if pair else b"?" for pair in words)
    if appendonly == b"no" and not save:
        _LOG.warning(
            "Redis at %s has no persistence (appendonly no, save ''): a restart loses everything that was "
            "acknowledged; set appendonly yes",
            where,
        )
    if policy.startswith(b"allkeys"):
        _LOG.warning(
            "Redis at %s evicts any key when memory is short (maxmemory-policy %s), and with it whole groups; "
            "set noeviction",
            where,
            policy.decode(),
        )


def _problem(error: Exception, host: str, port: int) -> BackendError:
    """Translate *error* of a server. Raise the result if access was denied: other servers would do the same."""
    problem = translate(error, written(host, port))
    if isinstance(problem, AccessDeniedError):
        raise problem from error
    return problem


def _target(moved: MovedError) -> tuple[str, int]:
    """Return the address of the cluster node to which *moved* redirects."""
    untyped: Any = moved  # redis-py has no types for these attributes.
    return untyped.host, untyped.port
