"""Real etcd servers for tests and benchmarks, in the manner of `servers`."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, final

import grpc
from etcd3 import etcdrpc
from servers import ServerMissingError, free_port

from smoothcluster.clock import SYSTEM_CLOCK

rpc: Any = etcdrpc
"""etcd's own calls, without types."""

_START = 60.0
"""Seconds that a server may take to answer."""

QUICK = {"heartbeat-interval": 20, "election-timeout": 100}
"""Leases of a second, instead of two."""


@final
class EtcdServer:
    """One server with its own folder, which outlives `kill` and `restart` and goes with `stop`.

    *settings* are further flags, without their dashes. *peers* are the members of an ensemble, as
    ``--initial-cluster`` has them, and *number* is its own among those. *tls* holds the files that
    ``https`` needs.
    """

    def __init__(
        self,
        settings: Mapping[str, object] | None = None,
        *,
        fsync: bool = False,
        peers: Sequence[str] = (),
        number: int = 0,
        tls: Mapping[str, Path] | None = None,
    ) -> None:
        self.port: int = free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="smoothcluster-etcd-"))
        self._process: subprocess.Popen[bytes] | None = None
        peers = peers or [f"http://127.0.0.1:{free_port()}"]
        self._tls = tls or {}
        client = f"{'https' if tls else 'http'}://{self.hosts}"
        flags: dict[str, object] = {
            "name": f"e{number}",
            "data-dir": self._folder / "data",
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "listen-peer-urls": peers[number],
            "initial-advertise-peer-urls": peers[number],
            "initial-cluster": ",".join(f"e{index}={peer}" for index, peer in enumerate(peers)),
            "logger": "zap",
            **{name: path for name, path in self._tls.items() if name != "authority"},
            **(settings or {}),
        }
        if not fsync:
            flags["unsafe-no-fsync"] = "true"
        self._command = ["etcd", *(f"--{name}={value}" for name, value in flags.items())]

    @property
    def hosts(self) -> str:
        """What `EtcdBackend` takes."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """What `connect` takes."""
        return f"etcd://{self.hosts}"

    @property
    def pid(self) -> int:
        """Of the running server."""
        assert self._process is not None, "the server does not run"
        return self._process.pid

    @property
    def log(self) -> str:
        """What it has written so far."""
        path = self._folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def leads(self) -> bool:
        """Whether it is the leader of its ensemble."""
        try:
            status = self.ask("Maintenance", "Status", rpc.StatusRequest())
        except grpc.RpcError:
            return False
        return bool(status.leader == status.header.member_id)

    def ask(self, service: str, call: str, request: Any, token: str | None = None) -> Any:
        """The answer to one of etcd's own calls. Raise gRPC's error if it refuses."""
        channel: Any = self._channel()
        try:
            stub = getattr(rpc, f"{service}Stub")(channel)
            metadata = [("hasleader", "true"), *([("token", token)] if token else [])]
            return getattr(stub, call)(request, timeout=2.0, metadata=metadata)
        finally:
            channel.close()

    def demand_passwords(self, root: str, users: Mapping[str, tuple[str, str]]) -> None:
        """Let nobody in but *users*: each may use all keys with a prefix, and has a password. *root*: root's own."""

        def auth(call: str, request: Any) -> None:
            self.ask("Auth", call, request)

        auth("RoleAdd", rpc.AuthRoleAddRequest(name="root"))
        auth("UserAdd", rpc.AuthUserAddRequest(name="root", password=root))
        auth("UserGrantRole", rpc.AuthUserGrantRoleRequest(user="root", role="root"))
        for user, (prefix, password) in users.items():
            auth("RoleAdd", rpc.AuthRoleAddRequest(name=user))
            start = prefix.encode()
            grant: Any = {"permType": 2, "key": start, "range_end": start[:-1] + bytes([start[-1] + 1])}
            auth("RoleGrantPermission", rpc.AuthRoleGrantPermissionRequest(name=user, perm=grant))
            auth("UserAdd", rpc.AuthUserAddRequest(name=user, password=password))
            auth("UserGrantRole", rpc.AuthUserGrantRoleRequest(user=user, role=user))
        auth("AuthEnable", rpc.AuthEnableRequest())

    def start(self) -> Self:
        """Start it and wait until it answers. Raise ServerMissingError if it is not installed."""
        if shutil.which("etcd") is None:
            raise ServerMissingError("no etcd found: apt-get install etcd-server")
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # A Ctrl-C meant for the tests ends it through them, not before them.
            )
        self._await_answer(self._process)
        return self

    def stop(self) -> None:
        """End it for good, and remove its folder. Repeatable."""
        self._end(signal.SIGTERM)
        shutil.rmtree(self._folder, ignore_errors=True)

    def kill(self) -> None:
        """SIGKILL: what was acknowledged is in its folder."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Kill it and start it again on the same port."""
        self.kill()
        self.start()

    def pause(self) -> None:
        """SIGSTOP: its connections stay, and nothing is answered. Return when every thread has stopped."""
        os.kill(self.pid, signal.SIGSTOP)
        while any(stat.rpartition(")")[2].split()[0] != "T" for stat in self._threads()):
            SYSTEM_CLOCK.sleep(0.001)

    def resume(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _channel(self) -> Any:
        plain: Any = grpc
        options = [("grpc.use_local_subchannel_pool", 1)]
        if not self._tls:
            return plain.insecure_channel(self.hosts, options=options)
        pem = [self._tls[name].read_bytes() for name in ("authority", "key-file", "cert-file")]
        return plain.secure_channel(self.hosts, plain.ssl_channel_credentials(*pem), options=options)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(ProcessLookupError):
            process.send_signal(how)
            process.send_signal(signal.SIGCONT)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _threads(self) -> list[str]:
        return [path.read_text() for path in Path(f"/proc/{self.pid}/task").glob("*/stat")]

    def _await_answer(self, process: subprocess.Popen[bytes]) -> None:
        until = SYSTEM_CLOCK.monotonic() + _START
        while not self._answers():
            if process.poll() is not None or SYSTEM_CLOCK.monotonic() > until:
                log = self.log
                self.stop()
                raise RuntimeError(f"etcd did not start:\n{log[-4000:]}")
            SYSTEM_CLOCK.sleep(0.02)

    def _answers(self) -> bool:
        """Whether it serves, or wants to know first who asks."""
        try:
            self.ask("KV", "Range", rpc.RangeRequest(key=b"any"))
        except grpc.RpcError as error:
            known: Any = error
            return bool(known.details() == "etcdserver: user name is empty")
        return True


@final
class EtcdEnsemble:
    """Three servers that agree among themselves: one leads, and any one may fail."""

    def __init__(self, settings: Mapping[str, object] | None = None) -> None:
        peers = [f"http://127.0.0.1:{free_port()}" for _ in range(3)]
        self.servers = [EtcdServer(settings, peers=peers, number=number) for number in range(3)]

    @property
    def hosts(self) -> str:
        """All three."""
        return ",".join(server.hosts for server in self.servers)

    @property
    def leader(self) -> EtcdServer:
        """The one that leads now."""
        return next(server for server in self.servers if server.leads)

    @property
    def followers(self) -> list[EtcdServer]:
        """The others that are up."""
        return [server for server in self.servers if not server.leads]

    def __enter__(self) -> Self:
        try:
            with ThreadPoolExecutor() as pool:  # None answers before most have started.
                list(pool.map(EtcdServer.start, self.servers))
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End all that still run."""
        for server in self.servers:
            server.stop()
