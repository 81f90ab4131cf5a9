"""What pages say of passwords and TLS on etcd is what a server with both needs."""

import os
import shutil
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
from certificates import make_certificates
from etcd_server import EtcdServer
from pages import block
from servers import not_installed
from smoothcluster_etcd import EtcdBackend

from smoothcluster.backend import CoordinationBackend, Create
from smoothcluster.errors import AccessDeniedError

SECRET = "open sesame"


@pytest.mark.slow
def test_passwords_and_tls(tmp_path: Path) -> None:
    """A user is made as the README of the adapter says, and gets in with the program of the how-to guide."""
    if shutil.which("etcdctl") is None:
        not_installed("etcdctl", "etcd-client")
    make_certificates(tmp_path)
    files = {"cert-file": "server.pem", "key-file": "server.key", "trusted-ca-file": "ca.pem", "authority": "ca.pem"}
    tls = {name: tmp_path / file for name, file in files.items()}
    with EtcdServer({"client-cert-auth": "true", "bcrypt-cost": 4}, tls=tls) as server:
        own = {"CACERT": "ca.pem", "CERT": "client.pem", "KEY": "client.key"}
        environment = {f"ETCDCTL_{name}": str(tmp_path / file) for name, file in own.items()}
        subprocess.run(
            ["bash", "-euc", block("backends/etcd/README.md", "sh", "etcdctl")],
            env=os.environ | environment | {"ETCDCTL_ENDPOINTS": f"https://{server.hosts}"},
            input=f"{SECRET}\n{SECRET}\n", text=True, check=True, capture_output=True, timeout=60,
        )  # fmt: skip
        server.demand_passwords("root's", {})

        code = block("docs/howto/run-on-etcd.md", "python", "password=").replace('"..."', f'"{SECRET}"')
        code = code.replace("etcd1:2379,etcd2:2379,etcd3:2379", server.hosts).replace("etcd-ca.pem", "ca.pem")
        code = code.replace("/crawler.", "/client.").replace("/etc/ssl", str(tmp_path))
        names: dict[str, CoordinationBackend] = {}
        exec(code, names)
        with closing(names["backend"]) as backend:
            backend.commit([], [Create("g/a", b"")])
            assert backend.keys("g") == ["g/a"]
            backend.lease(10.0).revoke()
        ca, certfile, keyfile = (str(tmp_path / file) for file in ("ca.pem", "client.pem", "client.key"))
        elsewhere = EtcdBackend(
            server.hosts, namespace="other", username="crawler", password=SECRET,
            ca=ca, certfile=certfile, keyfile=keyfile,
        )  # fmt: skip
        with closing(elsewhere), pytest.raises(AccessDeniedError):
            elsewhere.get("g/a")
