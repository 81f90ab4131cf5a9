"""Which etcd key holds what.

The key ``a/b`` lies at ``<namespace>/a/b/``, so that one range, of all that begins so, is the
key itself and whatever lies under it: no sibling (``a/b-c``, ``a/b.c``) sorts in between. That
makes "absent, and no directory" one comparison, and a key with its directory one watch.
"""

import re

from smoothcluster.backend import check_key

_BELOW = re.compile(rb"([A-Za-z0-9_.:@+=-]+)/(.*)", re.DOTALL)


def place(namespace: str, key: str) -> bytes:
    """Where *key* lies; everything under it begins so, too."""
    return f"{namespace}/{check_key(key)}/".encode()


def end(prefix: bytes) -> bytes:
    """The first key after all that begin with *prefix*, which ends in a slash."""
    return prefix[:-1] + b"0"


def below(prefix: bytes, key: bytes) -> tuple[str, bool] | None:
    """The name in the directory at *prefix* that *key* belongs to, and whether *key* lies directly there.

    None for the directory's own key, and for what somebody else has put there.
    """
    match = _BELOW.fullmatch(key, len(prefix))
    return None if match is None else (match[1].decode(), not match[2])


def ancestors(key: str) -> list[str]:
    """The directories that *key* lies in, the nearest last."""
    parts = key.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]
