"""The stores' own drivers in plain use, as the reference for measuring the adapters."""

import sqlite3
import uuid
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol
from urllib.parse import urlsplit

from smoothcluster.errors import UnavailableError
from smoothcluster.lifetime import ClientLifetime
from smoothcluster.memory.connections import ConnectionPool, check_path
from smoothcluster.memory.wire import Frame, frame

KEYS_PER_COMMIT = 14
"""Keys in a commit such as a claim: a member, a seat, and twelve shards."""

SMALL_VALUE = b"x" * 100


class Raw(Protocol):
    """A client of a store's driver."""

    @abstractmethod
    def read(self) -> None:
        """Read a single key."""

    @abstractmethod
    def write(self) -> None:
        """Set a single key."""

    @abstractmethod
    def write_many(self) -> None:
        """Set 14 keys, all or none."""

    @abstractmethod
    def make_and_remove(self) -> None:
        """Make two round trips: create a key bound to the client's lifetime, and remove the key."""

    @abstractmethod
    def close(self) -> None:
        """Close the client."""


class RawZookeeper(Raw):
    """Client of ZooKeeper through kazoo."""

    def __init__(self, hosts: str) -> None:
        from kazoo import client

        untyped: Any = client
        self._client: Any = untyped.KazooClient(hosts)
        self._client.start()
        self._root = f"/raw-{uuid.uuid4().hex}"
        self._paths = [f"{self._root}/{number}" for number in range(KEYS_PER_COMMIT)]
        for path in self._paths:
            self._client.create(path, SMALL_VALUE, makepath=True)

    def read(self) -> None:
        self._client.get(self._paths[0])

    def write(self) -> None:
        self._client.set(self._paths[0], SMALL_VALUE)

    def write_many(self) -> None:
        transaction = self._client.transaction()
        for path in self._paths:
            transaction.set_data(path, SMALL_VALUE)
        transaction.commit()

    def make_and_remove(self) -> None:
        self._client.create(f"{self._root}/lock", SMALL_VALUE, ephemeral=True)
        self._client.delete(f"{self._root}/lock")

    def close(self) -> None:
        self._client.delete(self._root, recursive=True)
        self._client.stop()
        self._client.close()


class RawEtcd(Raw):
    """Client of etcd through etcd3."""

    def __init__(self, hosts: str) -> None:
        import etcd3

        untyped: Any = etcd3
        host, _, port = hosts.partition(",")[0].partition(":")
        self._client: Any = untyped.client(host, int(port))
        self._root = f"raw-{uuid.uuid4().hex}"
        self._lease: Any = self._client.lease(60)

    def read(self) -> None:
        self._client.get(f"{self._root}/0")

    def write(self) -> None:
        self._client.put(f"{self._root}/0", SMALL_VALUE)

    def write_many(self) -> None:
        puts = [
            self._client.transactions.put(f"{self._root}/{number}", SMALL_VALUE) for number in range(KEYS_PER_COMMIT)
        ]
        self._client.transaction(compare=[], success=puts, failure=[])

    def make_and_remove(self) -> None:
        self._client.put(f"{self._root}/lock", SMALL_VALUE, self._lease)
        self._client.delete(f"{self._root}/lock")

    def close(self) -> None:
        self._client.delete_prefix(self._root)
        self._lease.revoke()
        self._client.close()


class RawRedis(Raw):
    """Client of Redis through redis-py."""

    def __init__(self, hosts: str) -> None:
        import redis

        untyped: Any = redis
        self._client: Any = untyped.Redis.from_url(f"redis://{hosts}")
        self._root = f"raw-{uuid.uuid4().hex}"

    def read(self) -> None:
        self._client.get(f"{self._root}/0")

    def write(self) -> None:
        self._client.set(f"{self._root}/0", SMALL_VALUE)

    def write_many(self) -> None:
        pipe = self._client.pipeline(transaction=True)
        for number in range(KEYS_PER_COMMIT):
            pipe.set(f"{self._root}/{number}", SMALL_VALUE)
        pipe.execute()

    def make_and_remove(self) -> None:
        self._client.set(f"{self._root}/lock", SMALL_VALUE, nx=True, ex=60)
        self._client.delete(f"{self._root}/lock")

    def close(self) -> None:
        self._client.delete(*(f"{self._root}/{number}" for number in range(KEYS_PER_COMMIT)))
        self._client.close()


class RawSqlite(Raw):
    """Client of sqlite through the standard library, with a write-ahead log synced to disk before a write returns."""

    def __init__(self, path: str) -> None:
        self._connection = sqlite3.connect(f"{path}.raw", isolation_level=None)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute("CREATE TABLE IF NOT EXISTS raw (key TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID")
        self.write_many()

    def read(self) -> None:
        self._connection.execute("SELECT value FROM raw WHERE key = '0'").fetchone()

    def write(self) -> None:
        self._connection.execute("REPLACE INTO raw VALUES ('0', ?)", (SMALL_VALUE,))

    def write_many(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany(
            "REPLACE INTO raw VALUES (?, ?)", [(str(n), SMALL_VALUE) for n in range(KEYS_PER_COMMIT)]
        )
        self._connection.execute("COMMIT")

    def make_and_remove(self) -> None:
        self._connection.execute("INSERT INTO raw VALUES ('lock', ?)", (SMALL_VALUE,))
        self._connection.execute("DELETE FROM raw WHERE key = 'lock'")

    def close(self) -> None:
        self._connection.close()


class RawMemory(Raw):
    """Client of a store in memory through the server's frames: this store has no other driver."""

    def __init__(self, path: str) -> None:
        if not path:
            raise SystemExit("a store in memory has a driver where a process serves it: memory:///path.sock")
        self._connections = ConnectionPool(check_path(path), 5.0, ClientLifetime(self, f"memory://{path}"))
        self._root = f"raw-{uuid.uuid4().hex}"
        self._lease = str(self._ask(["grant", 60.0]).words[0])
        names = [f"{self._root}/{number}" for number in range(KEYS_PER_COMMIT)]
        self._change(*(["create", name, len(SMALL_VALUE), False] for name in names))
        self._updates = [["update", name, len(SMALL_VALUE), None] for name in names]

    def _ask(self, words: Sequence[object], *values: bytes) -> Frame:
        return self._connections.request(frame(words, values), UnavailableError)

    def _change(self, *changes: Sequence[object]) -> None:
        values = [SMALL_VALUE for change in changes if change[0] != "delete"]
        assert self._ask(["commit", self._lease, [], [*changes], None], *values).words[0] == "done"

    def read(self) -> None:
        self._ask(["get", [f"{self._root}/0"]])

    def write(self) -> None:
        self._change(self._updates[0])

    def write_many(self) -> None:
        self._change(*self._updates)

    def make_and_remove(self) -> None:
        self._change(["create", f"{self._root}/lock", len(SMALL_VALUE), True])
        self._change(["delete", f"{self._root}/lock", None])

    def close(self) -> None:
        self._change(*(["delete", f"{self._root}/{number}", None] for number in range(KEYS_PER_COMMIT)))
        self._ask(["end", self._lease])
        self._connections.close()


def raw(url: str) -> Raw:
    """Return the driver's own client for the store at *url*."""
    parts = urlsplit(url)
    kinds: dict[str, type[Raw]] = {
        "zookeeper": RawZookeeper, "etcd": RawEtcd, "redis": RawRedis, "sqlite": RawSqlite, "memory": RawMemory,
    }  # fmt: skip
    if parts.scheme not in kinds:
        raise SystemExit(f"no raw client for {parts.scheme}://; there are {', '.join(kinds)}")
    where = {"sqlite": parts.path.removeprefix("/"), "memory": parts.path}.get(parts.scheme, parts.netloc)
    return kinds[parts.scheme](where)  # type: ignore[call-arg]  # each takes its place
