"""Translate errors of gRPC and etcd into the library's errors: the single table.

etcd did not apply a request with a refusal of its own, ``etcdserver: …``. A failed attempt to connect
sent nothing. Every other error, above all a lost connection or a missing answer, leaves the outcome of a
commit unknown.
"""

from typing import Any

import grpc

from smoothcluster.errors import AccessDeniedError, BackendError, CommitTooLargeError, LeaseLostError, UnavailableError

_Code: Any = grpc.StatusCode

_REFUSAL_CODES = (
    _Code.FAILED_PRECONDITION,
    _Code.INVALID_ARGUMENT,
    _Code.NOT_FOUND,
    _Code.OUT_OF_RANGE,
    _Code.PERMISSION_DENIED,
    _Code.RESOURCE_EXHAUSTED,
    _Code.UNAUTHENTICATED,
)
"""Status codes of refusals by etcd. With other codes etcd may give up on a request still under way."""

_SERVER_PREFIX = "etcdserver: "
_NO_LEADER = "etcdserver: no leader"
_NO_LEASE = "etcdserver: requested lease not found"
_STALE_TOKEN_MESSAGES = ("etcdserver: invalid auth token", "etcdserver: revision of auth store is old")
_NOT_SENT = ("failed to connect to all addresses", "errors resolving", "DNS resolution failed")

_TOO_MANY_OPERATIONS = "etcdserver: too many operations in txn request"
_TOO_LARGE_MESSAGES = ("etcdserver: request is too large", "grpc: received message larger than max")
"""The beginnings of a server's refusals of a large request; the second is a refusal by the server's gRPC."""

_ACCESS_DENIED_MESSAGES = {
    "etcdserver: user name is empty": "the server requires credentials: pass username= and password=",
    "etcdserver: authentication failed, invalid user ID or password": "the server refused username and password",
    "etcdserver: authentication is not enabled": "the server has no authentication: leave out username= and password=",
    "etcdserver: user name not found": "the server no longer knows this user",
    "etcdserver: permission denied": "the user lacks a permission: the user must be allowed to read and write all keys"
    " that begin with the namespace",
}


_REFUSAL_HINTS = {
    "etcdserver: mvcc: database space exceeded": "the database is full (alarm NOSPACE), and the servers refuse changes:"
    " compact the history, run etcdctl defrag, and then etcdctl alarm disarm; or raise --quota-backend-bytes",
    "etcdserver: corrupt cluster": "the data of a server is damaged (alarm CORRUPT): restore the server, and then run"
    " etcdctl alarm disarm",
    "etcdserver: no leader": "the servers have no leader: check that a majority of them runs and is connected",
    "etcdserver: too many requests": "the servers are overloaded",
}
"""Advice for refusals with a cause that users can mend."""


def translate_error(error: Any, where: str, unknown: type[BackendError] = UnavailableError) -> BackendError:
    """Translate *error* of the servers *where*; return *unknown* if the request may have been applied."""
    code, said = error.code(), error.details() or error.code().name
    if said == _NO_LEASE:
        return LeaseLostError(f"etcd at {where}: the lease is gone")
    if _is_too_large(error):
        return _too_large(where, said)
    if said in _ACCESS_DENIED_MESSAGES:
        return AccessDeniedError(f"etcd at {where}: {_ACCESS_DENIED_MESSAGES[said]}")
    if said == _NO_LEADER or is_refusal(error):
        return UnavailableError(f"etcd at {where}: {_REFUSAL_HINTS.get(said, said)}")
    if said.startswith(_SERVER_PREFIX):
        return unknown(f"etcd at {where}: {_REFUSAL_HINTS.get(said, said)}")
    if code is _Code.UNIMPLEMENTED:
        return UnavailableError(f"the server at {where} is no etcd 3.4 or newer: {said}")
    return (UnavailableError if said.startswith(_NOT_SENT) else unknown)(
        f"no answer from etcd at {where} ({code.name}: {said}); check the addresses, that a server runs there and is"
        " reachable from here, and whether the port speaks TLS"
    )


def is_refusal(error: Any) -> bool:
    """Return whether a working server has refused the request: nothing was applied."""
    refused = error.code() in _REFUSAL_CODES and str(error.details()).startswith(_SERVER_PREFIX)
    return refused or _is_too_large(error)


def concerns_operations(error: CommitTooLargeError) -> bool:
    """Return whether a server has refused the number of operations in a request, or else the number of bytes."""
    return _TOO_MANY_OPERATIONS in str(error)


def _too_large(where: str, said: str) -> CommitTooLargeError:
    option = "--max-txn-ops=128" if said == _TOO_MANY_OPERATIONS else "--max-request-bytes=1572864"
    return CommitTooLargeError(
        f"etcd at {where} takes smaller requests only than by default: {said}. Start etcd with {option} or more, or"
        " without this option"
    )


def _is_too_large(error: Any) -> bool:
    return str(error.details()).startswith((_TOO_MANY_OPERATIONS, *_TOO_LARGE_MESSAGES))


def is_stale(error: Any) -> bool:
    """Return whether nothing was applied and a new token will help."""
    return str(error.details()).startswith(_STALE_TOKEN_MESSAGES)
