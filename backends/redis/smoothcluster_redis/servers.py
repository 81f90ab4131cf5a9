"""Finding the server that holds the store, and the connections to it."""

import logging
import os
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, final

from redis.exceptions import MovedError, RedisError, ResponseError

from smoothcluster.clock import SYSTEM_CLOCK
from smoothcluster.errors import AccessDeniedError, BackendError, UnavailableError
from smoothcluster_redis.address import Address, written
from smoothcluster_redis.errors import ELSEWHERE, code, translate, unreachable
from smoothcluster_redis.link import Link, left

_LOG = logging.getLogger("smoothcluster_redis")

Answer = TypeVar("Answer")


@final
class Servers:
    """The server that holds the store at *address*. Each command takes a connection that nobody uses, or a new one."""

    def __init__(
        self,
        address: Address,
        timeout: float,
        tls: ssl.SSLContext | None,
        credentials: dict[str, Any],
        sentinel_credentials: dict[str, Any],
    ) -> None:
        self.address = address
        self.prefix = f"{{{address.namespace}}}:"
        """Of every Redis key. The braces put all of them into one slot of a Redis Cluster."""
        self.timeout = timeout
        self._tls = tls
        self._credentials = credentials
        self._sentinel_credentials = sentinel_credentials
        self._lock = threading.Lock()
        self._idle: list[Link] = []
        self._owner = os.getpid()
        self._last: tuple[str, int] | None = None
        self._warned = False
        self._closed = False

    def run(self, act: str, words: Sequence[Any] = (), unknown: type[BackendError] = UnavailableError) -> Any:
        """Have the script do *act*; raise *unknown* if that may have happened."""
        return self._with_link(lambda link, deadline: link.run(deadline, self.prefix, act, words), unknown)

    def history(self) -> str:
        """Which history the store is in, after a look at which server it is on."""

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
        """What *error*, met on *link*, means; whoever comes next looks for the store anew."""
        translated = translate(error, self.address.where, unknown)
        link.close()
        self._drop()
        if isinstance(error, MovedError):
            self._last = _target(error)
        return translated

    def connect(self, deadline: float) -> Link:
        """A new connection to the server that holds the store."""
        said: list[object] = []
        for tried, (host, port) in enumerate(self._candidates(deadline, said)):
            try:
                return self._follow(host, port, left(deadline) / max(1, len(self.address.hosts) - tried))
            except (RedisError, OSError) as error:
                said.append(_problem(error, host, port))
        raise unreachable(self.address.where, self.timeout, said[-1] if said else None, tls=self._tls is not None)

    def close(self) -> None:
        """End all connections that nobody uses; those in use end when they are given back."""
        self._closed = True
        self._drop()

    def _candidates(self, deadline: float, said: list[object]) -> Iterator[tuple[str, int]]:
        """Where the store may be, likeliest first; *said* is told what the Sentinels have against it."""
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
        link = Link(host, port, timeout, self._tls, **self._sentinel_credentials)
        try:
            deadline = SYSTEM_CLOCK.monotonic() + timeout
            found = link.ask(deadline, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.address.service)
            return (found[0].decode(), int(found[1])) if found else None
        finally:
            link.close()

    def _follow(self, host: str, port: int, timeout: float) -> Link:
        """Connect there, or to where in the cluster that one says that the store is."""
        try:
            return self._open(host, port, timeout)
        except MovedError as moved:
            return self._open(*_target(moved), timeout)

    def _open(self, host: str, port: int, timeout: float) -> Link:
        deadline = SYSTEM_CLOCK.monotonic() + timeout
        link = Link(host, port, timeout, self._tls, db=self.address.db, **self._credentials)
        try:
            link.identify(deadline, self.prefix, "hello")
            if not self._warned:
                self._warned = True
                self._warn(link, deadline)
        except BaseException:
            link.close()
            raise
        self._last = (host, port)
        return link

    def _warn(self, link: Link, deadline: float) -> None:
        """Say so if the server keeps nothing, or throws away what it should keep."""
        try:
            words = [link.ask(deadline, "CONFIG", "GET", name) for name in ("appendonly", "save", "maxmemory-policy")]
        except ResponseError:
            return  # Not permitted, as with most hosted servers.
        appendonly, save, policy = (pair[1] if pair else b"?" for pair in words)
        if appendonly == b"no" and not save:
            _LOG.warning(
                "Redis at %s has no persistence (appendonly no, save ''): a restart loses everything that was "
                "acknowledged; set appendonly yes",
                self.address.where,
            )
        if policy.startswith(b"allkeys"):
            _LOG.warning(
                "Redis at %s evicts any key when memory is short (maxmemory-policy %s), and with it whole groups; "
                "set noeviction",
                self.address.where,
                policy.decode(),
            )

    def _take(self, deadline: float) -> Link:
        with self._lock:
            if self._closed:
                raise UnavailableError("closed")
            if self._owner != os.getpid():  # A forked child has its parent's connections: they are not its own.
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
            if not self._closed:
                self._idle.append(link)
                return
        link.close()

    def _drop(self) -> None:
        """What happened to one connection has most likely happened to all."""
        with self._lock:
            links, self._idle = self._idle, []
        for link in links:
            link.close()


def _problem(error: Exception, host: str, port: int) -> BackendError:
    """What is wrong there. Raise it, if no other server would do better."""
    problem = translate(error, written(host, port))
    if isinstance(problem, AccessDeniedError):
        raise problem from error
    return problem


def _target(moved: MovedError) -> tuple[str, int]:
    """Where in the cluster the store is."""
    untyped: Any = moved  # As redis-py has it.
    return untyped.host, untyped.port
