"""Translate the errors of redis-py and Redis into the errors of `smoothcluster.errors`: the only table for this.

If the server refuses a script before the script's first write, no change was applied. After a lost
connection, a missing answer or an error outside the table, the outcome of a commit is
unknown.
"""

from redis.exceptions import AuthenticationError, AuthorizationError, NoPermissionError

from smoothcluster.errors import AccessDeniedError, BackendError, UnavailableError

DENIED = {
    "NOAUTH": "the server demands credentials, and got none: pass password=, and username= if it has users",
    "WRONGPASS": "the server refused the username or password",
    "NOPERM": "these credentials do not permit it",
}

ELSEWHERE = {
    "ASK": "this part of the cluster is being moved",
    "CLUSTERDOWN": "the cluster is down",
    "LOADING": "the server is reading its data, and answers soon",
    "MASTERDOWN": "the server is a replica without its primary",
    "MOVED": "this part of the cluster was moved to another server",
    "NOSTORE": "the database was emptied",
    "READONLY": "the server is a replica: check that you name the primary, or use redis+sentinel://",
    "UNBLOCKED": "the server became a replica",
}
"""Nothing was applied, and this connection no longer leads to the store."""

_REFUSED = {
    "BUSY": "the server is busy with somebody's script",
    "MISCONF": "the server cannot write to its disk, and takes no changes",
    "NOREPLICAS": "the server has too few replicas to take changes (min-replicas-to-write)",
    "OLDSERVER": "the server is too old: Redis 7.0 or newer is needed",
    "OOM": "the server is out of memory (maxmemory), and takes no changes",
    "TRYAGAIN": "this part of the cluster is being moved",
}
"""Nothing was applied."""

_WITHOUT = "the server refused the credentials: it has no password for that user"


def code(error: Exception) -> str:
    """Return the first word of a server's error, such as ``READONLY``; any word for other errors."""
    return getattr(error, "status_code", None) or str(error).partition(" ")[0]


def translate(error: Exception, where: str, unknown: type[BackendError] = UnavailableError) -> BackendError:
    """Translate *error*, raised at *where*, for the caller: into *unknown* if the command may have been applied."""
    word = code(error)
    at = f"Redis at {where}"
    if word in DENIED:
        detail = f": {error}" if word == "NOPERM" else ""
        return AccessDeniedError(f"{at}: {DENIED[word]}{detail}")
    if isinstance(error, AuthenticationError | AuthorizationError | NoPermissionError):
        return AccessDeniedError(f"{at}: {_WITHOUT}")
    said = ELSEWHERE.get(word) or _REFUSED.get(word)
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
