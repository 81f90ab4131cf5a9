"""Translate the errors of redis-py and Redis into the errors of `smoothcluster.errors`: the only table for this.

If the server refuses a script before the script's first write, no change was applied. After a lost
connection, a missing answer or an error outside the table, the outcome of a commit is
unknown.
"""

from redis.exceptions import AuthenticationError, AuthorizationError, NoPermissionError

from smoothcluster.errors import AccessDeniedError, BackendError, UnavailableError

ACCESS_DENIED_MESSAGES = {
    "NOAUTH": "the server requires credentials: pass password=, and username= if the server has users",
    "WRONGPASS": "the server refused the username or password",
    "NOPERM": "the user lacks a permission",
}

WRONG_SERVER_MESSAGES = {
    "ASK": "the cluster is moving this slot to another node",
    "CLUSTERDOWN": "the cluster is down",
    "LOADING": "the server is still loading its data",
    "MASTERDOWN": "the server is a replica without its primary",
    "MOVED": "the cluster moved this slot to another node",
    "NOSTORE": "the database was emptied",
    "READONLY": "the server is a replica: connect to the primary, or use redis+sentinel://",
    "UNBLOCKED": "the server became a replica",
}
"""Nothing was applied, and this connection no longer leads to the store."""

_REFUSAL_MESSAGES = {
    "BUSY": "the server is busy with a script",
    "MISCONF": "the server cannot write to its disk, and refuses changes",
    "NOREPLICAS": "the server has too few replicas, and refuses changes (min-replicas-to-write)",
    "OLDSERVER": "the server is too old: Redis 7.0 or newer is needed",
    "OOM": "the server is out of memory (maxmemory), and refuses changes",
    "TRYAGAIN": "the cluster is moving this slot to another node",
}
"""Nothing was applied."""

_REFUSED_CREDENTIALS_MESSAGE = "the server refused the credentials: no password is set for this user"


def error_code(error: Exception) -> str:
    """Return the first word of a server's error, such as ``READONLY``; any word for other errors."""
    return getattr(error, "status_code", None) or str(error).partition(" ")[0]


def translate_error(error: Exception, where: str, unknown: type[BackendError] = UnavailableError) -> BackendError:
    """Translate *error*, raised at *where*, for the caller: into *unknown* if the command may have been applied."""
    word = error_code(error)
    at = f"Redis at {where}"
    if word in ACCESS_DENIED_MESSAGES:
        detail = f": {error}" if word == "NOPERM" else ""
        return AccessDeniedError(f"{at}: {ACCESS_DENIED_MESSAGES[word]}{detail}")
    if isinstance(error, AuthenticationError | AuthorizationError | NoPermissionError):
        return AccessDeniedError(f"{at}: {_REFUSED_CREDENTIALS_MESSAGE}")
    said = WRONG_SERVER_MESSAGES.get(word) or _REFUSAL_MESSAGES.get(word)
    if said:
        return UnavailableError(f"{at}: {said} ({word})")
    return unknown(f"{at}: {str(error) or type(error).__name__}")


def unreachable(where: str, timeout: float, last: object, *, tls: bool) -> UnavailableError:
    """Return the error for no connection in time, with the addresses, the last error and advice."""
    speaks = "TLS" if tls else "plain TCP (not TLS)"
    return UnavailableError(
        f"no connection to Redis at {where} within {timeout:g} s ({last or 'no answer'}); check the addresses, "
        f"that a server runs there and is reachable from here, and that the port speaks {speaks}"
    )
