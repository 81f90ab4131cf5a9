"""The stores' own drivers, as plainly as one would use them: what the adapters are measured against."""

import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from abc import abstractmethod
from contextlib import suppress
from multiprocessing.connection import Client, Connection, Listener
from typing import Any, Protocol
from urllib.parse import urlsplit

KEYS = 14
"""Of a commit such as a claim: a member, a seat, and twelve shards."""

VALUE = b"x" * 100


class Raw(Protocol):
    """One client. Keys are made when it is."""

    @abstractmethod
    def read(self) -> None:
        """Read one key."""

    @abstractmethod
    def write(self) -> None:
        """Set one key."""

    @abstractmethod
    def write_many(self) -> None:
        """Set 14 keys, all or none."""

    @abstractmethod
    def make_and_remove(self) -> None:
        """Two round trips: make a key that lives no longer than this client, and remove it."""

    @abstractmethod
    def close(self) -> None:
        """End it."""


class RawZookeeper(Raw):
    """kazoo."""

    def __init__(self, hosts: str) -> None:
        from kazoo import client

        untyped: Any = client
        self._client: Any = untyped.KazooClient(hosts)
        self._client.start()
        self._root = f"/raw-{uuid.uuid4().hex}"
        self._paths = [f"{self._root}/{number}" for number in range(KEYS)]
        for path in self._paths:
            self._client.create(path, VALUE, makepath=True)

    def read(self) -> None:
        self._client.get(self._paths[0])

    def write(self) -> None:
        self._client.set(self._paths[0], VALUE)

    def write_many(self) -> None:
        transaction = self._client.transaction()
        for path in self._paths:
            transaction.set_data(path, VALUE)
        transaction.commit()

    def make_and_remove(self) -> None:
        self._client.create(f"{self._root}/lock", VALUE, ephemeral=True)
        self._client.delete(f"{self._root}/lock")

    def close(self) -> None:
        self._client.delete(self._root, recursive=True)
        self._client.stop()
        self._client.close()


class RawEtcd(Raw):
    """etcd3."""

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
        self._client.put(f"{self._root}/0", VALUE)

    def write_many(self) -> None:
        puts = [self._client.transactions.put(f"{self._root}/{number}", VALUE) for number in range(KEYS)]
        self._client.transaction(compare=[], success=puts, failure=[])

    def make_and_remove(self) -> None:
        self._client.put(f"{self._root}/lock", VALUE, self._lease)
        self._client.delete(f"{self._root}/lock")

    def close(self) -> None:
        self._client.delete_prefix(self._root)
        self._lease.revoke()
        self._client.close()


class RawRedis(Raw):
    """redis-py."""

    def __init__(self, hosts: str) -> None:
        import redis

        untyped: Any = redis
        self._client: Any = untyped.Redis.from_url(f"redis://{hosts}")
        self._root = f"raw-{uuid.uuid4().hex}"

    def read(self) -> None:
        self._client.get(f"{self._root}/0")

    def write(self) -> None:
        self._client.set(f"{self._root}/0", VALUE)

    def write_many(self) -> None:
        pipe = self._client.pipeline(transaction=True)
        for number in range(KEYS):
            pipe.set(f"{self._root}/{number}", VALUE)
        pipe.execute()

    def make_and_remove(self) -> None:
        self._client.set(f"{self._root}/lock", VALUE, nx=True, ex=60)
        self._client.delete(f"{self._root}/lock")

    def close(self) -> None:
        self._client.delete(*(f"{self._root}/{number}" for number in range(KEYS)))
        self._client.close()


class RawSqlite(Raw):
    """The standard library's, with a log beside the file that is on the disk before a write returns."""

    def __init__(self, path: str) -> None:
        self._connection = sqlite3.connect(f"{path}.raw", isolation_level=None)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute("CREATE TABLE IF NOT EXISTS raw (key TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID")
        self.write_many()

    def read(self) -> None:
        self._connection.execute("SELECT value FROM raw WHERE key = '0'").fetchone()

    def write(self) -> None:
        self._connection.execute("REPLACE INTO raw VALUES ('0', ?)", (VALUE,))

    def write_many(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany("REPLACE INTO raw VALUES (?, ?)", [(str(n), VALUE) for n in range(KEYS)])
        self._connection.execute("COMMIT")

    def make_and_remove(self) -> None:
        self._connection.execute("INSERT INTO raw VALUES ('lock', ?)", (VALUE,))
        self._connection.execute("DELETE FROM raw WHERE key = 'lock'")

    def close(self) -> None:
        self._connection.close()


def serve(path: str) -> None:
    """Keep a dictionary for whoever connects to the socket at *path*, each in a thread."""
    data: dict[str, bytes] = {}

    def attend(client: Connection) -> None:
        with suppress(EOFError):
            while True:
                act, changes = client.recv()
                match act:
                    case "get":
                        client.send(data.get(changes))
                    case "set":
                        data.update(changes)
                        client.send(True)
                    case _:
                        del data[changes]
                        client.send(True)

    with Listener(path) as listener:
        while True:
            threading.Thread(target=attend, args=[listener.accept()], daemon=True).start()


def dial(path: str) -> Connection:
    """Connect to what `serve` is about to serve at *path*."""
    while True:
        try:
            return Client(path)
        except OSError:
            time.sleep(0.01)


class RawMemory(Raw):
    """A dictionary in another process, by the standard library's multiprocessing.connection."""

    def __init__(self, _: str) -> None:
        self._folder = tempfile.TemporaryDirectory()
        path = f"{self._folder.name}/socket"
        self._server = subprocess.Popen([sys.executable, __file__, path])
        self._client = dial(path)
        self.write_many()

    def _ask(self, act: str, what: object) -> object:
        self._client.send((act, what))
        return self._client.recv()

    def read(self) -> None:
        self._ask("get", "0")

    def write(self) -> None:
        self._ask("set", {"0": VALUE})

    def write_many(self) -> None:
        self._ask("set", {str(number): VALUE for number in range(KEYS)})

    def make_and_remove(self) -> None:
        self._ask("set", {"lock": VALUE})
        self._ask("delete", "lock")

    def close(self) -> None:
        self._client.close()
        self._server.kill()
        self._server.wait()
        self._folder.cleanup()


def raw(url: str) -> Raw:
    """The driver's own client for the store at *url*."""
    parts = urlsplit(url)
    kinds: dict[str, type[Raw]] = {
        "zookeeper": RawZookeeper, "etcd": RawEtcd, "redis": RawRedis, "sqlite": RawSqlite, "memory": RawMemory,
    }  # fmt: skip
    if parts.scheme not in kinds:
        raise SystemExit(f"no raw client for {parts.scheme}://; there are {', '.join(kinds)}")
    return kinds[parts.scheme](parts.path.removeprefix("/") if parts.scheme == "sqlite" else parts.netloc)  # type: ignore[call-arg]  # each takes its place


if __name__ == "__main__":
    serve(sys.argv[1])
