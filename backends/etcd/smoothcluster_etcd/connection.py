"""Connection to the servers, with failover between them; and the token for calls.

The connection sends no change to a server before the server has answered a read. So a change either finds
no server, and was certainly not sent, or goes to a server with a recent answer. If the call then fails, the
outcome is unknown.
"""

import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import grpc
from etcd3 import etcdrpc

from smoothcluster.clock import SYSTEM_CLOCK
from smoothcluster.errors import BackendClosedError, BackendError, UnavailableError
from smoothcluster.lifetime import ClientLifetime
from smoothcluster.timeline import Timeline
from smoothcluster_etcd.address import Pem
from smoothcluster_etcd.errors import is_refusal, is_stale, translate_error

_rpc: Any = etcdrpc
_grpc: Any = grpc

_LEADER_METADATA = (("hasleader", "true"),)
"""Ask a server without contact to the others to report the lost leader at once instead of waiting."""

_LINEARIZABLE_CALLS = ("range", "txn")
"""The calls with answers as of the latest commit. A renewal shows the revision of a server that may be behind."""

_CHANNEL_OPTIONS = [
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),  # Else all backends of a process would share a connection.
    ("grpc.enable_http_proxy", 0),
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # Detects a silently lost connection. etcd disconnects clients with pings more frequent than every 5 s.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
]


@dataclass(frozen=True, slots=True)
class Credentials:
    """Credentials of this client."""

    username: str
    password: str = field(repr=False)


@final
class Server:
    """The gRPC channel of a server, which connects by itself, and the calls through this channel."""

    def __init__(self, address: str, pem: Pem | None) -> None:
        self.address = address
        self.proven = False
        """Whether the server has answered since its last failure."""
        if pem is None:
            self._channel = _grpc.insecure_channel(address, options=_CHANNEL_OPTIONS)
        else:
            credentials = _grpc.ssl_channel_credentials(pem.ca, pem.key, pem.certificate)
            self._channel = _grpc.secure_channel(address, credentials, options=_CHANNEL_OPTIONS)
        kv, lease = _rpc.KVStub(self._channel), _rpc.LeaseStub(self._channel)
        self.authenticate = _rpc.AuthStub(self._channel).Authenticate
        self.watch = _rpc.WatchStub(self._channel).Watch
        self.status = _rpc.MaintenanceStub(self._channel).Status
        self.range, self.txn, self.grant, self.revoke = kv.Range, kv.Txn, lease.LeaseGrant, lease.LeaseRevoke
        # A stream with a single request and answer looks like a plain call on the wire, and needs no thread.
        self.renew = self._channel.unary_unary(
            "/etcdserverpb.Lease/LeaseKeepAlive",
            request_serializer=_rpc.LeaseKeepAliveRequest.SerializeToString,
            response_deserializer=_rpc.LeaseKeepAliveResponse.FromString,
        )

    def close(self) -> None:
        """Cancel all calls under way."""
        self._channel.close()


@final
class Connection:
    """Connection to the servers at *addresses*. A read of the key *probe* shows whether a server works.

    *lifetime* is the lifetime of the client: no call goes out in another process, or after the end.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        timeout: float,
        credentials: Credentials | None,
        pem: Pem | None,
        probe: bytes,
        lifetime: ClientLifetime,
    ) -> None:
        self.where = f"{','.join(addresses)} ({'TLS' if pem else 'plain TCP, not TLS'})"
        self.timeout = timeout
        self.timeline = Timeline()
        """The revisions in the answers."""
        self.on_failed: Callable[[Server], None] = lambda _: None
        """Called when a server has failed."""
        self._servers = [Server(address, pem) for address in random.sample(addresses, len(addresses))]
        self._credentials = credentials
        self._probe: Any = _rpc.RangeRequest(key=probe, count_only=True)
        self._lock = threading.Lock()
        self._current = 0
        self._token: str | None = None
        self.lifetime = lifetime

    def deadline(self) -> float:
        """Return the deadline of a call begun now."""
        return SYSTEM_CLOCK.monotonic() + self.timeout

    def call(
        self, method: str, request: Any, deadline: float | None = None, unknown: type[BackendError] = UnavailableError
    ) -> Any:
        """Return the answer to *request*; raise *unknown* if the server may have applied the request despite an error.

        While nothing was done, try the next server.
        """
        deadline = deadline or self.deadline()
        left = len(self._servers)
        while True:
            server = self.ready(deadline)
            try:
                return self._send(server, method, request, deadline, unknown)
            except UnavailableError:
                if not left or SYSTEM_CLOCK.monotonic() >= deadline:
                    raise
            left -= 1

    def term(self, deadline: float) -> int:
        """Return the raft term of the current leader, confirmed by a majority. The answer shows any rollback, too."""
        return int(self.call("range", self._probe, deadline).header.raft_term)

    def database_bytes(self, deadline: float) -> int:
        """Return the size of the server's database, which etcd's quota limits."""
        return int(self.call("status", _rpc.StatusRequest(), deadline).dbSize)

    def ready(self, deadline: float) -> Server:
        """Return a working server; give each server in turn an equal share of the time left."""
        self.lifetime.check()
        failure: UnavailableError | None = None
        for left in range(len(self._servers), 0, -1):
            server = self._servers[self._current]
            if self.lifetime.closed:
                break
            if server.proven:
                return server
            now = SYSTEM_CLOCK.monotonic()
            try:
                self._send(server, "range", self._probe, now + (deadline - now) / left, UnavailableError)
            except UnavailableError as error:
                failure = error
            else:
                server.proven = True
                return server
        self.lifetime.check()  # The client may have been closed meanwhile, and this is the cause of the failure.
        assert failure is not None
        raise failure

    def metadata(self, server: Server, deadline: float) -> tuple[tuple[str, str], ...]:
        """Return the metadata of a call. May raise gRPC's errors."""
        if self._credentials is None:
            return _LEADER_METADATA
        token = self._token
        if token is None:
            who = _rpc.AuthenticateRequest(name=self._credentials.username, password=self._credentials.password)
            answer = server.authenticate(who, timeout=deadline - SYSTEM_CLOCK.monotonic(), metadata=_LEADER_METADATA)
            token = self._token = str(answer.token)
        return (*_LEADER_METADATA, ("token", token))

    def forget_token(self) -> None:
        """Forget the token; the next call asks for a new token."""
        self._token = None

    def mark_failed(self, server: Server) -> None:
        """Mark *server* as failed and continue with the next server."""
        server.proven = False
        # Several calls may fail on the server at the same time. Only the first moves on: the second must not skip the
        # next server.
        with self._lock:
            if self._servers[self._current] is server:
                self._current = (self._current + 1) % len(self._servers)
        self.on_failed(server)

    def close(self) -> None:
        """Cancel all calls under way of a client with an ended lifetime. Repeatable."""
        for server in self._servers:
            server.close()

    def _send(self, server: Server, method: str, request: Any, deadline: float, unknown: type[BackendError]) -> Any:
        sending = False  # A failure to get a token comes before the request: nothing was sent.
        try:
            metadata = self.metadata(server, deadline)
            since = self.timeline.mark()
            sending = True
            answer = getattr(server, method)(request, timeout=deadline - SYSTEM_CLOCK.monotonic(), metadata=metadata)
        except grpc.RpcError as error:
            if is_stale(error):
                self.forget_token()
            elif not is_refusal(error):
                self.mark_failed(server)
            if self.lifetime.closed and not (sending and unknown is not UnavailableError):
                raise BackendClosedError(f"this client of etcd at {self.where} is closed") from error
            raise translate_error(error, self.where, unknown if sending else UnavailableError) from error
        except ValueError:
            # gRPC raises ValueError on a closed channel.
            raise BackendClosedError(f"this client of etcd at {self.where} is closed") from None
        header = answer.header
        cluster = f"cluster {header.cluster_id:x}"
        self.timeline.advance(header.revision, since, cluster, latest=method in _LINEARIZABLE_CALLS)
        return answer
