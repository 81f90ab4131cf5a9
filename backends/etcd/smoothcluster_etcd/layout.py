"""Mapping from keys of the library to keys in etcd.

The key ``a/b`` lies at ``<namespace>/a/b/``. A single range with this prefix holds the key and everything
below: no sibling (``a/b-c``, ``a/b.c``) sorts in between. So a single comparison proves "absent, and no
directory", and a single watch covers a key with its directory.
"""

import re

from smoothcluster.backend import check_key

_CHILD_PATTERN = re.compile(rb"([A-Za-z0-9_.:@+=-]+)/(.*)", re.DOTALL)


def etcd_key(namespace: str, key: str) -> bytes:
    """Return the etcd key of *key*, which is also the prefix of everything below."""
    return f"{namespace}/{check_key(key)}/".encode()


def range_end(prefix: bytes) -> bytes:
    """Return the first key after all keys with *prefix*."""
    kept = prefix.rstrip(b"\xff")  # No byte comes after this one. Only foreign keys have such bytes.
    return kept[:-1] + bytes([kept[-1] + 1])


def below(prefix: bytes, key: bytes) -> tuple[str, bool] | None:
    """Return the name in the directory at *prefix* to which *key* belongs, and whether *key* lies directly there.

    Return None for the directory's own key and for foreign keys.
    """
    match = _CHILD_PATTERN.fullmatch(key, len(prefix))
    return None if match is None else (match[1].decode(), not match[2])


def ancestors(key: str) -> list[str]:
    """Return the directories above *key*, the nearest last."""
    parts = key.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]
