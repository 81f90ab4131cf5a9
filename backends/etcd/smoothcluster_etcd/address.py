"""Parse server addresses, URLs and TLS files."""

import ssl
from dataclasses import dataclass
from pathlib import Path

from smoothcluster import server_options
from smoothcluster.backend import check_key
from smoothcluster.errors import UsageError
from smoothcluster.server_options import TlsOptions, format_server, namespace_query, parse_servers

STORE_NAME = "etcd"
_URL_PREFIX = "etcd://"
DEFAULT_NAMESPACE = "smoothcluster"


@dataclass(frozen=True, slots=True)
class Pem:
    """TLS files as gRPC takes them: authorities (None for gRPC's own), client key and client certificate."""

    ca: bytes | None
    key: bytes | None
    certificate: bytes | None

    @classmethod
    def read(cls, tls: TlsOptions) -> "Pem | None":
        """Read the files; return None if TLS is off. Raise UsageError if a file is unusable: gRPC would only fail."""
        if not tls.on:
            return None
        try:
            context = ssl.create_default_context(cafile=tls.ca)
            if tls.certfile:
                context.load_cert_chain(tls.certfile, tls.keyfile, password=_no_password)
            files = tls.ca, tls.keyfile or tls.certfile, tls.certfile
            return cls(*(Path(each).read_bytes() if each else None for each in files))
        except (OSError, ValueError) as error:
            raise tls.unusable(error) from None


def _no_password() -> str:
    raise ValueError("the key has a password, and gRPC cannot read such a key")


def check_hosts(hosts: str, namespace: str) -> list[tuple[str, int]]:
    """Return the servers in ``h1:2379,h2:2379``. Raise UsageError with the reason if an argument is invalid."""
    servers = parse_servers(STORE_NAME, hosts, 2379)
    try:
        check_key(namespace)
    except ValueError as error:
        raise UsageError(f"etcd: invalid namespace: {error}") from None
    return servers


def format_url(servers: list[tuple[str, int]], namespace: str) -> str:
    """Return a URL for `parse_url`."""
    hosts = ",".join(format_server(*each) for each in servers)
    return f"{_URL_PREFIX}{hosts}{namespace_query(namespace, DEFAULT_NAMESPACE)}"


def parse_url(url: str) -> tuple[str, str | None]:
    """Return the hosts and the namespace, if given, of an ``etcd://`` URL."""
    if not url.startswith(_URL_PREFIX):
        raise UsageError(f"an etcd URL begins with {_URL_PREFIX}")
    form = f"{_URL_PREFIX}h1:2379,h2:2379"
    parts = server_options.parse_url(STORE_NAME, url, form)
    if parts.path.strip("/"):
        raise UsageError(f"an etcd URL is {form}, without a path")
    return parts.hosts, parts.namespace
