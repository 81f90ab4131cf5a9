"""Real etcd servers for tests and benchmarks, in the manner of `servers`."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

import grpc
from etcd3 import etcdrpc
from servers import Ensemble, Peer, free_port, not_installed

rpc: Any = etcdrpc
"""etcd's own calls, without types."""

QUICK = {"heartbeat-interval": 20, "election-timeout": 100}
"""Leases of a second, instead of two."""


@final
class EtcdServer(Peer):
    """One etcd server.

    *settings* are further flags, without their dashes. *peers* are the members of an ensemble, as
    ``--initial-cluster`` has them, and *number* is its own among those. *tls* holds the files that
    ``https`` needs.
    """

    scheme = "etcd"

    def __init__(
        self,
        settings: Mapping[str, object] | None = None,
        *,
        fsync: bool = False,
        peers: Sequence[str] = (),
        number: int = 0,
        tls: Mapping[str, Path] | None = None,
    ) -> None:
        super().__init__()
        peers = peers or [f"http://127.0.0.1:{free_port()}"]
        self._tls = tls or {}
        client = f"{'https' if tls else 'http'}://{self.hosts}"
        self._flags: dict[str, object] = {
            "name": f"e{number}",
            "data-dir": self.folder / "data",
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
            self._flags["unsafe-no-fsync"] = "true"

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

    def permit(self, user: str, root: str, *, allowed: bool) -> None:
        """Take away what *user* may do, or give it back. *root*: root's own password."""
        token = self.ask("Auth", "Authenticate", rpc.AuthenticateRequest(name="root", password=root)).token
        if allowed:
            self.ask("Auth", "UserGrantRole", rpc.AuthUserGrantRoleRequest(user=user, role=user), token)
        else:
            self.ask("Auth", "UserRevokeRole", rpc.AuthUserRevokeRoleRequest(name=user, role=user), token)

    def command(self) -> Sequence[str]:
        """Itself, with its flags."""
        if shutil.which("etcd") is None:
            not_installed("etcd", "etcd-server")
        return ["etcd", *(f"--{name}={value}" for name, value in self._flags.items())]

    def _channel(self) -> Any:
        plain: Any = grpc
        options = [("grpc.use_local_subchannel_pool", 1)]
        if not self._tls:
            return plain.insecure_channel(self.hosts, options=options)
        pem = [self._tls[name].read_bytes() for name in ("authority", "key-file", "cert-file")]
        return plain.secure_channel(self.hosts, plain.ssl_channel_credentials(*pem), options=options)

    def answers(self) -> bool:
        """Whether it serves, or wants to know first who asks."""
        try:
            self.ask("KV", "Range", rpc.RangeRequest(key=b"any"))
        except grpc.RpcError as error:
            known: Any = error
            return bool(known.details() == "etcdserver: user name is empty")
        return True


@final
class EtcdEnsemble(Ensemble[EtcdServer]):
    """Three servers."""

    def __init__(self, settings: Mapping[str, object] | None = None) -> None:
        peers = [f"http://127.0.0.1:{free_port()}" for _ in range(3)]
        super().__init__([EtcdServer(settings, peers=peers, number=number) for number in range(3)])
