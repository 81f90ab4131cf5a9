"""What pages say of settings, Sentinels, passwords and TLS on Redis is what servers and commands take."""

import json
import logging
import secrets
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from certificates import make_certificates
from cluster.place import Place
from pages import block
from redis_server import RedisSentinels, RedisServer
from smoothcluster_redis import RedisBackend

from smoothcluster import Cluster, connect
from smoothcluster.backend import CoordinationBackend, Create
from smoothcluster.errors import UnavailableError
from smoothcluster.testing import eventually

pytestmark = pytest.mark.slow

SECRET = "open-sesame"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """One that speaks TLS alone, asks for no certificate, and lets in `crawler` alone."""
    make_certificates(tmp_path)
    own = RedisServer()
    own.configure(
        {
            "port": 0,
            "tls-port": own.port,
            "tls-auth-clients": "no",
            "tls-cert-file": tmp_path / "server.pem",
            "tls-key-file": tmp_path / "server.key",
            "tls-ca-cert-file": tmp_path / "ca.pem",
            "bind": "127.0.0.1",
            "dir": own.folder,
            "user": ["default off", f"crawler on >{SECRET} ~* &* +@all"],
        }
    )
    with own:
        yield own


def test_passwords_and_tls(server: RedisServer, tmp_path: Path) -> None:
    """The program of the how-to guide gets in."""
    code = block("docs/howto/run-on-redis.md", "python", "password=").replace('"..."', f'"{SECRET}"')
    code = code.replace("redis1:6379", server.hosts).replace("/etc/ssl/redis-ca.pem", str(tmp_path / "ca.pem"))
    names: dict[str, CoordinationBackend] = {}
    exec(code, names)
    with closing(names["backend"]) as backend:
        backend.commit([], [Create("g/a", b"")])
        assert backend.keys("g") == ["g/a"]


def test_options_in_a_file(server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands get in with a file such as the page about them shows."""
    shown = block("docs/reference/commands.md", "json", '"password"').replace('"..."', f'"{SECRET}"')
    options = shown.replace("/etc/ssl/store-ca.pem", str(tmp_path / "ca.pem"))
    (tmp_path / "options.json").write_text(options)
    (tmp_path / "options.json").chmod(0o600)
    monkeypatch.setenv("SMOOTHCLUSTER_OPTIONS", str(tmp_path / "options.json"))
    place = Place(tmp_path, f"rediss://{server.hosts}/0")
    place.type("smoothcluster submit --job j --group docs http://h/")
    with closing(connect(place.url, **json.loads(options))) as backend:
        assert Cluster(backend, place.group).jobs() == {"j": "sealed"}


def settings(text: str) -> dict[str, str]:
    """The lines of a redis.conf."""
    return dict(line.split(" ", 1) for line in text.splitlines())


def test_sentinels(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With the settings shown nothing is warned of, and a primary that has lost its replicas takes nothing more."""
    lasting = settings(block("docs/howto/run-on-redis.md", "text", "appendonly"))
    careful = settings(block("docs/howto/run-on-redis.md", "text", "min-replicas"))
    with RedisSentinels(lasting | careful) as servers:
        url = f"redis+sentinel://{servers.hosts}/{servers.SERVICE}/0"
        place = Place(tmp_path, url)
        command = block("docs/howto/run-on-redis.md", "sh", "sentinel://")
        assert f"/{servers.SERVICE}/0" in command
        assert place.type(f"{command}smoothcluster submit --job j http://h/") == "j\n"
        with closing(RedisBackend.from_url(url)) as backend:
            backend.commit([], [Create("g/a", b"")])
            assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
            servers.replica.kill()

            def refused() -> bool:
                try:
                    backend.commit([], [Create(f"g/{secrets.token_hex(4)}", b"")])
                except UnavailableError as error:
                    return "replicas" in str(error)
                return False

            eventually(refused)
