"""Translate the errors of redis-py and Redis into the errors of `smoothcluster.errors`: the only table for this.

If the server refuses a script before the script's first write, no change was applied. After a lost
connection, a missing answer or an error outside the table, the outcome of a commit is
unknown.
"""

from collections.abc import Sequence

from redis.exceptions import AuthenticationError, AuthorizationError, NoPermissionError, ResponseError

from smoothcluster.errors import AccessDeniedError, BackendError, UnavailableError

ACCESS_DENIED_MESSAGES = {
    "NOAUTH": "the server requires credentials: pass password=, and username= if the server has users",
    "WRONGPASS": "the server refused the username or password",
    "NOPERM": "the user lacks a permission",
    "DENIED": "the server is in protected mode, and accepts clients of its own machine only: give the server a"
    " password, and pass password=",
}

GRANT_HINT = "the README of smoothcluster_redis shows the ACL SETUSER command with all permissions"
_FORBIDDEN_IN_SCRIPT = ("The user executing the script can't", "ACL failure in script")
_TOO_MANY_CLIENTS = "max number of clients reached"

WRONG_SERVER_MESSAGES = {
    "ASK": "the cluster is moving this slot to another node",
    "CLUSTERDOWN": "the cluster is down",
    "LOADING": "the server is still loading its data",
    "MASTERDOWN": "the server is a replica without its primary",
    "MOVED": "the cluster moved this slot to another node",
    "NOCOMMAND": "the server does not know a command that the library needs, or has renamed the command",
    "NOSTORE": "the database was emptied",
    "READONLY": "the server is a replica: connect to the primary, or use redis+sentinel://",
    "UNBLOCKED": "the server became a replica",
}
"""Nothing was applied, and this connection no longer leads to the store."""

_REFUSAL_MESSAGES = {
    "BUSY": "the server is busy with a script",
    "MISCONF": "the server cannot write to its disk, and refuses changes: see the server's log, and free disk space",
    "NOREPLICAS": "the server has too few replicas, and refuses changes (min-replicas-to-write)",
    "OLDSERVER": "the server is too old: Redis 7.0 or newer is needed",
    "TRYAGAIN": "the cluster is moving this slot to another node",
}
"""Nothing was applied."""

_REFUSED_CREDENTIALS_MESSAGE = "the server refused the credentials: no password is set for this user"


def error_code(error: Exception) -> str:
    """Return the first word of a server's error, such as ``READONLY``; any word for other errors."""
    return getattr(error, "status_code", None) or str(error).partition(" ")[0]


def has_answered(error: Exception) -> bool:
    """Return whether *error* is the answer of a Redis server, and no failure to reach a server."""
    return isinstance(error, ResponseError) or getattr(error, "status_code", None) is not None


def translate_error(
    error: Exception, where: str, unknown: type[BackendError] = UnavailableError, memory: str = "maxmemory"
) -> BackendError:
    """Translate *error*, raised at *where*, for the caller: into *unknown* if the command may have been applied.

    *memory* describes the memory settings of a full server.
    """
    word, text = error_code(error), str(error)
    at = f"Redis at {where}"
    if word in ACCESS_DENIED_MESSAGES:
        detail = f": {text}; {GRANT_HINT}" if word == "NOPERM" else ""
        return AccessDeniedError(f"{at}: {ACCESS_DENIED_MESSAGES[word]}{detail}")
    if isinstance(error, AuthenticationError | AuthorizationError | NoPermissionError):
        return AccessDeniedError(f"{at}: {_REFUSED_CREDENTIALS_MESSAGE}")
    if any(each in text for each in _FORBIDDEN_IN_SCRIPT):
        # A change of permissions can stop the script halfway: then the outcome of a commit is unknown.
        kind = AccessDeniedError if unknown is UnavailableError else unknown
        return kind(f"{at}: {ACCESS_DENIED_MESSAGES['NOPERM']} for a command of the script ({text}); {GRANT_HINT}")
    if word == "OOM":
        return UnavailableError(f"{at} is full ({memory}): raise maxmemory or free memory (OOM)")
    if _TOO_MANY_CLIENTS in text:
        return UnavailableError(f"{at}: {_TOO_MANY_CLIENTS}: raise maxclients, or close connections of other clients")
    said = WRONG_SERVER_MESSAGES.get(word) or _REFUSAL_MESSAGES.get(word)
    if said:
        return UnavailableError(f"{at}: {said} ({text if word == 'NOCOMMAND' else word})")
    return unknown(f"{at}: {text or type(error).__name__}")


def no_server(where: str, failures: Sequence[BackendError | str], timeout: float, *, tls: bool) -> BackendError:
    """Return the error for no connection in time: the answers of servers, if any; otherwise the addresses and advice.

    An answer is a `BackendError`, any other failure is text.
    """
    if any(isinstance(each, BackendError) for each in failures):
        return UnavailableError("; ".join(str(each) for each in failures))
    speaks = "TLS" if tls else "plain TCP (not TLS)"
    return UnavailableError(
        f"no connection to Redis at {where} within {timeout:g} s ({failures[-1] if failures else 'no answer'}); check"
        f" the addresses, that a server runs there and is reachable from here, and that the port speaks {speaks}"
    )
