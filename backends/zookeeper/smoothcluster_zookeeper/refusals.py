"""Find out why a server that accepts connections refuses a session: ZooKeeper closes the connection without a word.

A new connection shows the reason. A server closes a connection beyond its limit at once, before the client sends any
data. Otherwise the answer to the word ``srvr`` shows whether the server serves, and the latest transaction there: a
server refuses a session that has seen a later transaction.
"""

import re
import socket
from collections.abc import Callable
from contextlib import suppress

CLOSED_AT_ONCE = (
    "the server closes new connections at once; probably too many connections from this address: raise maxClientCnxns,"
    " or close connections of other clients"
)
NOT_SERVING = "the server does not serve: wait until it has started and is in touch with a quorum"
OLDER_SERVER = (
    "the server has lost data, or was restored from an older copy: this client has seen later transactions than the"
    " server has; restore the data of the servers, or restart this program"
)
UNEXPLAINED_REFUSAL = (
    "the server closed the connection instead of opening a session; check that the port speaks {speaks}, and see the"
    " server's log"
)

_PROBE_SECONDS = 0.5
"""Seconds to wait for a server to close a new connection, and for an answer."""


def explain_refusal(connect: Callable[[], socket.socket], seen: int, *, tls: bool) -> str:
    """Return why a server, reached by *connect*, refuses a session that has *seen* this transaction id."""
    try:
        with connect() as connection:
            connection.settimeout(_PROBE_SECONDS)
            answer = _ask(connection)
    except OSError:
        answer = b""
    if answer is None:
        return CLOSED_AT_ONCE
    if b"not currently serving" in answer:
        return NOT_SERVING
    latest = re.search(rb"Zxid: (0x[0-9a-f]+)", answer)
    if latest and int(latest[1], 16) < seen:
        return OLDER_SERVER
    return UNEXPLAINED_REFUSAL.format(speaks="TLS" if tls else "plain TCP (not TLS)")


def _ask(connection: socket.socket) -> bytes | None:
    """Return the answer to ``srvr``; None if the server closes the connection before any request.

    A server under load closes late, so that the request meets a closed connection, which is then reset.
    """
    answer = b""
    try:
        with suppress(TimeoutError):  # A server waits for the client to speak first.
            if not connection.recv(1):
                return None
        connection.sendall(b"srvr")
        while data := connection.recv(4096):
            answer += data
    except ConnectionError:
        return answer or None
    return answer
