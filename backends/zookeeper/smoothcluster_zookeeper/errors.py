"""Translate errors of kazoo and ZooKeeper into the library's errors: the single table.

After a server's own refusal nothing was applied. A lost connection, a missing answer, or an error outside
the table leaves the outcome of a commit unknown.
"""

from kazoo.exceptions import (
    AuthFailedError,
    BadArgumentsError,
    ConnectionClosedError,
    ConnectionLoss,
    EphemeralOnLocalSessionError,
    InvalidACLError,
    MarshallingError,
    NoAuthError,
    NodeExistsError,
    NoNodeError,
    NotReadOnlyCallError,
    QuotaExceededError,
    SessionClosedRequireSaslError,
    SessionExpiredError,
    SessionMovedError,
    ThrottledOpError,
    UnimplementedError,
)

from smoothcluster.errors import AccessDeniedError, BackendError, UnavailableError
from smoothcluster_zookeeper.settings import Settings

NO_NODE = -101
NO_AUTH = -102

_ACCESS_DENIED_ERRORS = (AuthFailedError, InvalidACLError, NoAuthError, SessionClosedRequireSaslError)
_NOT_APPLIED = (
    BadArgumentsError,
    ConnectionClosedError,  # By this client, before sending.
    EphemeralOnLocalSessionError,
    MarshallingError,
    NoNodeError,
    NodeExistsError,
    NotReadOnlyCallError,
    QuotaExceededError,
    SessionMovedError,
    ThrottledOpError,
    UnimplementedError,
)

_ERROR_HINTS: dict[type[Exception], str] = {
    AuthFailedError: "the server refused the credentials",
    ConnectionLoss: "the connection was lost before the answer came",
    NoAuthError: "access denied with these credentials, or without credentials; check username and password",
    SessionClosedRequireSaslError: "the server requires SASL authentication, which this backend does not support",
    UnimplementedError: "the server is too old; ZooKeeper 3.6 or newer is needed",
}


def translate_error(
    error: Exception,
    where: str,
    *,
    unknown: type[BackendError] = UnavailableError,
    expired: type[BackendError] = UnavailableError,
) -> BackendError:
    """Translate *error* of the servers *where* into an error for the caller.

    Return *unknown* if the request may have been applied; *expired* if the session is gone.
    """
    said = _ERROR_HINTS.get(type(error)) or str(error) or type(error).__name__
    message = f"ZooKeeper at {where}: {said}"
    if isinstance(error, _ACCESS_DENIED_ERRORS):
        return AccessDeniedError(message)
    if isinstance(error, _NOT_APPLIED):
        return UnavailableError(message)
    return (expired if isinstance(error, SessionExpiredError) else unknown)(message)


def unreachable(settings: Settings, failures: dict[str, str], refusals: dict[str, str]) -> UnavailableError:
    """Return the error for a connection timeout.

    If servers were reached, the error names the reasons why they refused a session; otherwise the addresses, the last
    failure, and hints.
    """
    if refusals:
        reasons = "; ".join(f"{host}: {reason}" for host, reason in sorted(refusals.copy().items()))
        return UnavailableError(f"ZooKeeper refused a session within {settings.timeout:g} s ({reasons})")
    speaks = "plain TCP (not TLS)" if settings.tls is None else "TLS"
    last = "; ".join(f"{host}: {failure}" for host, failure in sorted(failures.copy().items()))
    return UnavailableError(
        f"no connection to ZooKeeper at {settings.hosts} within {settings.timeout:g} s ({last or 'no answer'}); check"
        " the addresses, that a server runs there and is reachable from here, has a quorum, and that the port speaks"
        f" {speaks}"
    )
