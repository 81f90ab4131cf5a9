"""Real ZooKeeper servers for tests and benchmarks, in the manner of `servers`."""

import os
import shutil
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import final

from servers import Ensemble, Peer, free_port, not_installed

_JARS = Path("/usr/share/java")
_CLASSES = (
    "zookeeper.jar",
    "zookeeper-jute.jar",
    "slf4j-api.jar",
    "slf4j-log4j12.jar",
    "log4j-1.2.jar",
    "netty*.jar",
    "commons-cli.jar",
    "snappy-java.jar",
    "metrics-core.jar",
)


@final
class ZookeeperServer(Peer):
    """One ZooKeeper server.

    *tick_time* in milliseconds: leases are granted 2 to 20 of them. *force_sync* is ZooKeeper's
    default, and slower: every commit is on the disk before it is answered. *settings* are further
    lines of zoo.cfg, which win over ours. *number* is its own among those of an ensemble.
    """

    scheme = "zookeeper"

    def __init__(
        self,
        tick_time: int = 2000,
        *,
        force_sync: bool = False,
        settings: Mapping[str, object] | None = None,
        number: int | None = None,
    ) -> None:
        super().__init__()
        lines = {
            "tickTime": tick_time,
            "dataDir": self.folder / "data",
            "clientPort": self.port,
            "clientPortAddress": "127.0.0.1",
            "admin.enableServer": "false",
            "4lw.commands.whitelist": "*",
            "maxClientCnxns": 0,
            "initLimit": 50,
            "syncLimit": 20,
            "forceSync": "yes" if force_sync else "no",
            **(settings or {}),
        }
        (self.folder / "data").mkdir()
        if number is not None:
            (self.folder / "data" / "myid").write_text(str(number))
        (self.folder / "zoo.cfg").write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
        (self.folder / "log4j.properties").write_text(
            "log4j.rootLogger=INFO, out\n"
            "log4j.appender.out=org.apache.log4j.ConsoleAppender\n"
            "log4j.appender.out.layout=org.apache.log4j.PatternLayout\n"
            "log4j.appender.out.layout.ConversionPattern=%d %p %m%n\n"
        )

    @property
    def leads(self) -> bool:
        """Whether it is the leader of its ensemble."""
        try:
            return "Mode: leader" in self.ask("srvr")
        except OSError:
            return False

    def ask(self, word: str) -> str:
        """The answer to one of ZooKeeper's four-letter words."""
        with socket.create_connection(("127.0.0.1", self.port), 1.0) as connection:
            connection.sendall(word.encode())
            return b"".join(iter(lambda: connection.recv(65536), b"")).decode()

    def command(self) -> Sequence[str]:
        """A JVM of its own, quick to start."""
        return [
            _java(),
            "-Xmx512m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",  # A test lives too short for anything better.
            "-cp",
            f"{_class_path()}:{self.folder}",
            "org.apache.zookeeper.server.quorum.QuorumPeerMain",
            str(self.folder / "zoo.cfg"),
        ]

    def answers(self) -> bool:
        """Whether it serves: `ruok` is answered before it does, `srvr` says so."""
        try:
            return "Mode:" in self.ask("srvr")
        except OSError:
            return False


def _java() -> str:
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=f"{home}/bin" if home else None) or shutil.which("java")
    if java is None:
        not_installed("java", "zookeeper")
    return java


def _class_path() -> str:
    jars = [sorted(_JARS.glob(name)) for name in _CLASSES]
    missing = [name for name, found in zip(_CLASSES[:5], jars, strict=False) if not found]
    if missing:
        not_installed(f"{', '.join(missing)} in {_JARS}", "zookeeper")
    return ":".join(str(jar) for found in jars for jar in found)


@final
class ZookeeperEnsemble(Ensemble[ZookeeperServer]):
    """Three servers."""

    def __init__(self, tick_time: int = 2000, *, settings: Mapping[str, object] | None = None) -> None:
        members = {f"server.{number}": f"127.0.0.1:{free_port()}:{free_port()}" for number in (1, 2, 3)}
        settings = {**(settings or {}), **members}
        super().__init__([ZookeeperServer(tick_time, settings=settings, number=number) for number in (1, 2, 3)])
