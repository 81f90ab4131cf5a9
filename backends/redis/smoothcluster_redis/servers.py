"""Find the server that holds the store, and keep connections to the server."""

import logging
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, final

from redis.exceptions import MovedError, RedisError, ResponseError

from smoothcluster.backend import StoreUsage
from smoothcluster.clock import SYSTEM_CLOCK
from smoothcluster.errors import AccessDeniedError, BackendError, UnavailableError
from smoothcluster.server_options import format_server, warn_of_plain_password
from smoothcluster_redis.address import STORE_NAME
from smoothcluster_redis.connection import StoreConnection, seconds_left
from smoothcluster_redis.errors import WRONG_SERVER_MESSAGES, error_code, has_answered, no_server, translate_error
from smoothcluster_redis.settings import ClientState, Credentials, Settings
from smoothcluster_redis.usage import read_usage

_REDIS_LOG = logging.getLogger("smoothcluster_redis")

Answer = TypeVar("Answer")


@final
class Servers:
    """The server that holds a part of the store. Each command takes an idle connection, or opens a connection.

    A part holds the keys of *group*, or, without a group, all keys of no group. On a Redis Cluster each part may be on
    another node. Each part has a separate history, to be checked on every new connection: so parts share no connection.
    """

    def __init__(self, settings: Settings, state: ClientState, group: str | None = None) -> None:
        namespace = settings.address.namespace
        self.settings = settings
        self.state = state
        self.address = settings.address
        self.timeout = settings.timeout
        self.prefix = f"{{{namespace if group is None else f'{namespace}/{group}'}}}:"
        """The prefix of every Redis key. The braces put all keys into the same slot of a Redis Cluster."""
        self._lock = threading.Lock()
        self._idle: list[StoreConnection] = []
        self._last: tuple[str, int] | None = None

    def deadline(self) -> float:
        """Return the deadline of a call begun now."""
        return SYSTEM_CLOCK.monotonic() + self.timeout

    def run(
        self,
        act: str,
        words: Sequence[Any] = (),
        unknown: type[BackendError] = UnavailableError,
        deadline: float | None = None,
    ) -> Any:
        """Have the script do *act*. Raise *unknown* if the script may have done so despite an error."""

        def run(connection: StoreConnection, deadline: float) -> Any:
            return connection.run(deadline, self.prefix, act, words)

        return self._with_connection(run, unknown, deadline or self.deadline())

    def history(self) -> str:
        """Return the store's current history, after a check of the server's identity."""

        def identify(connection: StoreConnection, deadline: float) -> str:
            connection.identify(deadline, self.prefix, "tick")
            return connection.history

        return self._with_connection(identify, UnavailableError, self.deadline())

    def usage(self) -> StoreUsage | None:
        """Return how full the server is; None if the user may not ask."""
        return self._with_connection(read_usage, UnavailableError, self.deadline())

    def _with_connection(
        self, act: Callable[[StoreConnection, float], Answer], unknown: type[BackendError], deadline: float
    ) -> Answer:
        self.state.lifetime.check()  # Before any lock.
        connection = self._acquire(deadline)
        try:
            answer = act(connection, deadline)
        except RedisError as error:
            if not isinstance(error, ResponseError) or error_code(error) in WRONG_SERVER_MESSAGES:
                raise self.drop_failed(connection, error, unknown) from error
            memory = _memory_settings(connection, deadline) if error_code(error) == "OOM" else ""
            self._release(connection)
            raise translate_error(error, self.address.where, unknown, memory) from error
        except BaseException:
            connection.close()  # The answer may still arrive, and would be taken for the answer to a later command.
            raise
        self._release(connection)
        return answer

    def drop_failed(
        self, connection: StoreConnection, error: RedisError, unknown: type[BackendError] = UnavailableError
    ) -> BackendError:
        """Translate *error*, raised on *connection*, and close all idle connections.

        The next command looks for the store's server again.
        """
        translated = translate_error(error, self.address.where, unknown)
        connection.close()
        self._close_idle()
        if isinstance(error, MovedError):
            self._last = _redirection(error)
        return translated

    def connect(self, deadline: float) -> StoreConnection:
        """Open a connection to the server that holds the store."""
        failures: list[BackendError | str] = []
        for tried, (host, port) in enumerate(self._candidates(deadline, failures)):
            try:
                return self._open_redirected(
                    host, port, seconds_left(deadline) / max(1, len(self.address.hosts) - tried)
                )
            except (RedisError, OSError) as error:
                failures.append(_failure(error, host, port))
        raise no_server(self.address.where, failures, self.timeout, tls=self.settings.tls is not None)

    def close(self) -> None:
        """Close all idle connections of a client with an ended lifetime. `_release` closes the connections in use."""
        self._close_idle()

    def warn_of_hosts(self) -> None:
        """Log a warning if a password for the servers that the user named is going to be sent over plain TCP."""
        sentinels = self.address.service is not None
        credentials = self.settings.sentinel_credentials if sentinels else self.settings.credentials
        self._warn_of_plain_password([host for host, _ in self.address.hosts], credentials)

    def _warn_of_plain_password(self, hosts: Sequence[str], credentials: Credentials) -> None:
        """Log a warning, once for each client, before a password is sent to *hosts* over plain TCP."""
        if credentials.password is None or self.settings.tls is not None:
            return
        with self.state.lock:
            if not self.state.warned_of_password:
                self.state.warned_of_password = warn_of_plain_password(STORE_NAME, hosts)

    def _candidates(self, deadline: float, failures: list[BackendError | str]) -> Iterator[tuple[str, int]]:
        """Yield the addresses where the store may be, likeliest first. Add the failures of Sentinels to *failures*."""
        if self.address.service is None:
            last = self._last
            yield from [last] if last else []
            yield from (host for host in self.address.hosts if host != last)
            return
        for number, (host, port) in enumerate(self.address.hosts):
            share = seconds_left(deadline) / (len(self.address.hosts) - number + 1)
            try:
                found = self._ask_sentinel(host, port, share)
            except (RedisError, OSError) as error:
                failures.append(_failure(error, host, port))
                continue
            if found:
                yield found
            else:
                failures.append(
                    UnavailableError(
                        f"the Sentinel at {format_server(host, port)} knows no service {self.address.service!r}"
                    )
                )

    def _ask_sentinel(self, host: str, port: int, timeout: float) -> tuple[str, int] | None:
        connection = StoreConnection(host, port, timeout, self.settings.tls, self.settings.sentinel_credentials)
        try:
            deadline = SYSTEM_CLOCK.monotonic() + timeout
            found = connection.request(deadline, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.address.service)
            return (found[0].decode(), int(found[1])) if found else None
        finally:
            connection.close()

    def _open_redirected(self, host: str, port: int, timeout: float) -> StoreConnection:
        """Connect to this server, or to the node of the cluster to which this server redirects."""
        try:
            return self._open(host, port, timeout)
        except MovedError as moved:
            return self._open(*_redirection(moved), timeout)

    def _open(self, host: str, port: int, timeout: float) -> StoreConnection:
        deadline = SYSTEM_CLOCK.monotonic() + timeout
        # Sentinels and nodes of a cluster name other servers than the user did.
        self._warn_of_plain_password([host], self.settings.credentials)
        connection = StoreConnection(
            host, port, timeout, self.settings.tls, self.settings.credentials, db=self.address.db
        )
        try:
            # Before any other command: if another server process has taken over, the script must first invalidate the
            # versions and renew the leases of the lost history. A commit sent earlier could pass as current.
            connection.identify(deadline, self.prefix, "hello")
            with self.state.lock:
                new = (host, port) not in self.state.warned_of
                self.state.warned_of.add((host, port))
            if new:
                _warn_of_settings(connection, deadline, format_server(host, port))
        except BaseException:
            connection.close()
            raise
        self._last = (host, port)
        return connection

    def _acquire(self, deadline: float) -> StoreConnection:
        with self._lock:
            connection = self._idle.pop() if self._idle else None
        # Checked before sending: a command sent on a connection that the server has closed has an unknown outcome.
        if connection is not None and not connection.stale:
            return connection
        if connection is not None:
            connection.close()
            self._close_idle()
        return self.connect(deadline)

    def _release(self, connection: StoreConnection) -> None:
        with self._lock:
            # Read under the lock: a connection made idle before the mark is set is closed by `close`.
            if not self.state.closed.is_set():
                self._idle.append(connection)
                return
        connection.close()

    def _close_idle(self) -> None:
        """Close all idle connections: the failure of a connection has most likely hit the others, too."""
        with self._lock:
            connections, self._idle = self._idle, []
        for connection in connections:
            connection.close()


def _warn_of_settings(connection: StoreConnection, deadline: float, where: str) -> None:
    """Log a warning if the server has no persistence, or may evict keys of the store."""
    # Most hosted servers permit INFO and forbid CONFIG.
    policy = _memory_settings(connection, deadline).rpartition(" ")[2]
    if policy not in ("noeviction", "maxmemory", "?"):
        _REDIS_LOG.warning(
            "Redis at %s evicts keys when memory is short (maxmemory-policy %s), and tasks or whole groups may be "
            "lost; set noeviction",
            where,
            policy,
        )
    try:
        words = [connection.request(deadline, "CONFIG", "GET", name) for name in ("appendonly", "save")]
    except ResponseError:
        return
    appendonly, save = (pair[1] if pair else b"?" for pair in words)
    if appendonly == b"no" and not save:
        _REDIS_LOG.warning(
            "Redis at %s has no persistence (appendonly no, save ''): a restart loses every acknowledged commit; "
            "set appendonly yes",
            where,
        )


def _failure(error: Exception, host: str, port: int) -> BackendError | str:
    """Return the answer of a server as an error, or text for no answer.

    Raise the answer if access was denied: other servers would do the same.
    """
    problem = translate_error(error, format_server(host, port))
    if isinstance(problem, AccessDeniedError):
        raise problem from error
    return problem if has_answered(error) else f"{format_server(host, port)}: {str(error) or type(error).__name__}"


def _memory_settings(connection: StoreConnection, deadline: float) -> str:
    """Describe the settings for memory of the server, for messages."""
    try:
        info: bytes = connection.request(deadline, "INFO", "memory")
    except RedisError:
        return "maxmemory"
    found = dict(re.findall(r"(maxmemory_\w+):(\S+)", info.decode(errors="replace")))
    return f"maxmemory {found.get('maxmemory_human', '?')}, {found.get('maxmemory_policy', '?')}"


def _redirection(moved: MovedError) -> tuple[str, int]:
    """Return the address of the cluster node to which *moved* redirects."""
    untyped: Any = moved  # redis-py has no types for these attributes.
    return untyped.host, untyped.port
