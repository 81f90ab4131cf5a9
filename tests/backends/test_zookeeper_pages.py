"""What a page says of passwords and TLS on ZooKeeper is what a server that speaks TLS needs."""

from contextlib import closing
from pathlib import Path

import pytest
from certificates import make_certificates
from pages import block
from servers import free_port
from smoothcluster_zookeeper import ZookeeperBackend
from zookeeper_server import ZookeeperServer

from smoothcluster.backend import CoordinationBackend, Create
from smoothcluster.errors import AccessDeniedError

SECRET = "open sesame"


@pytest.mark.slow
def test_passwords_and_tls(tmp_path: Path) -> None:
    """What is made is for the user alone."""
    make_certificates(tmp_path, "IP:127.0.0.1,DNS:localhost")
    pair = [(tmp_path / f"server.{kind}").read_text() for kind in ("key", "pem")]
    (tmp_path / "keystore.pem").write_text("".join(pair))
    port = free_port()
    tls = {
        "secureClientPort": port,
        "secureClientPortAddress": "127.0.0.1",
        "serverCnxnFactory": "org.apache.zookeeper.server.NettyServerCnxnFactory",
        "ssl.clientAuth": "none",
        "ssl.keyStore.location": tmp_path / "keystore.pem",
        "ssl.keyStore.type": "PEM",
    }
    with ZookeeperServer(settings=tls) as server:
        code = block("docs/howto/run-on-zookeeper.md", "python", "password=").replace('"..."', f'"{SECRET}"')
        code = code.replace("zk1:2281,zk2:2281,zk3:2281", f"127.0.0.1:{port}")
        names: dict[str, CoordinationBackend] = {}
        exec(code.replace("/etc/ssl/zookeeper-ca.pem", str(tmp_path / "ca.pem")), names)
        with closing(names["backend"]) as backend:
            backend.commit([], [Create("g/a", b"")])
            assert backend.keys("g") == ["g/a"]
        with closing(ZookeeperBackend(f"{server.hosts}/crawlers")) as stranger, pytest.raises(AccessDeniedError):
            stranger.get("g/a")
