"""Stores that do not let everybody in: what lets one in, and what does not."""

from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from certificates import make_certificates
from redis_server import RedisServer
from servers import free_port
from zookeeper_server import ZookeeperServer

from smoothcluster.backend import Create
from smoothcluster.registry import connect

SECRET, GUESSED = "open sesame", "wild guess"

Options = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Guarded:
    """A store, and the options with which one is let in, or kept out."""

    url: str
    right: Options
    wrong: Mapping[str, Options]
    says: str
    """A pattern that every refusal matches."""


Start = Callable[[Path], AbstractContextManager[Guarded]]
"""Starts one, with a folder to put files into."""


def _passwords(url: str, right: dict[str, object]) -> Guarded:
    nobody = {name: value for name, value in right.items() if name == "namespace"}
    wrong = {"none": nobody, "guessed": {**right, "password": GUESSED}}
    return Guarded(url, right, wrong, r"(?i)credentials|password|denied|permi")


@contextmanager
def zookeeper_password(_: Path) -> Generator[Guarded]:
    """What is made with a password is for whoever has it, and the namespace was so made."""
    own = {"username": "me", "password": SECRET}
    with ZookeeperServer(tick_time=200, settings={"maxSessionTimeout": 60_000}) as server:
        with closing(connect(server.url, **own)) as backend:
            backend.commit([], [Create("made/first", b"")])
        yield _passwords(server.url, {**own})


@contextmanager
def etcd_password(_: Path) -> Generator[Guarded]:
    """A server that knows a user."""
    from etcd_server import EtcdServer

    with EtcdServer({"bcrypt-cost": 4}) as server:
        server.demand_passwords("root's", {"me": ("mine/", SECRET)})
        yield _passwords(server.url, {"namespace": "mine", "username": "me", "password": SECRET})


@contextmanager
def redis_password(_: Path) -> Generator[Guarded]:
    """A server with a password."""
    with RedisServer({"requirepass": f'"{SECRET}"'}) as server:
        yield _passwords(server.url, {"password": SECRET})


def _certificates(url: str, folder: Path, plain: Mapping[str, object]) -> Guarded:
    own = {"ca": "ca.pem", "certfile": "client.pem", "keyfile": "client.key"}

    def files(**changes: str | None) -> dict[str, object]:
        named = {name: file for name, file in {**own, **changes}.items() if file is not None}
        return {**plain, **{name: str(folder / file) for name, file in named.items()}, "timeout": 2.0}

    wrong = {
        "unknown authority": files(ca="other-ca.pem"),
        "no certificate": files(certfile=None, keyfile=None),
        "a stranger's": files(certfile="other-ca.pem", keyfile="other-ca.key"),
    }
    return Guarded(url, {**files(), "timeout": 5.0}, wrong, r"TLS|certificate|SSL")


@contextmanager
def zookeeper_tls(folder: Path) -> Generator[Guarded]:
    """A server that speaks TLS and wants a client's certificate, as is its default."""
    make_certificates(folder)
    (folder / "keystore.pem").write_text((folder / "server.key").read_text() + (folder / "server.pem").read_text())
    port = free_port()
    tls = {
        "secureClientPort": port,
        "secureClientPortAddress": "127.0.0.1",
        "serverCnxnFactory": "org.apache.zookeeper.server.NettyServerCnxnFactory",
        "ssl.keyStore.location": folder / "keystore.pem",
        "ssl.keyStore.type": "PEM",
        "ssl.trustStore.location": folder / "ca.pem",
        "ssl.trustStore.type": "PEM",
    }
    with ZookeeperServer(tick_time=200, settings={"maxSessionTimeout": 60_000, **tls}):
        yield _certificates(f"zookeeper://127.0.0.1:{port}", folder, {"use_ssl": True})


@contextmanager
def etcd_tls(folder: Path) -> Generator[Guarded]:
    """Likewise."""
    from etcd_server import EtcdServer

    make_certificates(folder)
    files = {"cert-file": "server.pem", "key-file": "server.key", "trusted-ca-file": "ca.pem", "authority": "ca.pem"}
    tls = {name: folder / file for name, file in files.items()}
    with EtcdServer({"client-cert-auth": "true"}, tls=tls) as server:
        yield _certificates(server.url, folder, {})


@contextmanager
def redis_tls(folder: Path) -> Generator[Guarded]:
    """Likewise."""
    make_certificates(folder)
    server = RedisServer()
    tls = {
        "tls-cert-file": folder / "server.pem",
        "tls-key-file": folder / "server.key",
        "tls-ca-cert-file": folder / "ca.pem",
    }
    server.configure({"port": 0, "tls-port": server.port, "bind": "127.0.0.1", "save": '""', **tls})
    with server:
        yield _certificates(f"rediss://{server.hosts}", folder, {})


GUARDED: Mapping[str, Mapping[str, Start]] = {
    "zookeeper": {"password": zookeeper_password, "TLS": zookeeper_tls},
    "etcd": {"password": etcd_password, "TLS": etcd_tls},
    "redis": {"password": redis_password, "TLS": redis_tls},
}
"""By the scheme of its kind, and by what it demands."""
