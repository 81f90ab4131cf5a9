"""Parse server addresses and URLs."""

from dataclasses import dataclass

from smoothcluster import server_options
from smoothcluster.backend import check_key
from smoothcluster.errors import UsageError
from smoothcluster.server_options import format_server, namespace_query, parse_servers

STORE_NAME = "ZooKeeper"
_URL_PREFIX = "zookeeper://"


@dataclass(frozen=True, slots=True)
class Address:
    """Servers, and the root znode of all data."""

    servers: list[tuple[str, int]]
    chroot: str
    namespace: str

    @classmethod
    def of(cls, hosts: str, namespace: str) -> "Address":
        """Parse ``h1:2181,h2:2181/chroot``. Raise UsageError with the reason if the text is invalid."""
        server_options.refuse_credentials(STORE_NAME, hosts)
        servers, _, chroot = hosts.strip().partition("/")
        if "://" in hosts:
            servers = hosts  # `parse_servers` tells the correction.
        pairs = parse_servers(STORE_NAME, servers, 2181)
        try:
            for part in (namespace, *filter(None, [chroot.strip("/")])):
                check_key(part)
            if f"{chroot.strip('/')}/{namespace}".lstrip("/").partition("/")[0] == "zookeeper":
                raise ValueError("the znode /zookeeper is reserved by ZooKeeper")
        except ValueError as error:
            raise UsageError(f"{STORE_NAME}: invalid chroot or namespace: {error}") from None
        return cls(pairs, f"/{chroot.strip('/')}".rstrip("/"), namespace)

    @property
    def hosts(self) -> str:
        """The servers as text: ``h1:2181,h2:2181``."""
        return ",".join(format_server(*pair) for pair in self.servers)

    @property
    def root(self) -> str:
        """The root znode of all data."""
        return f"{self.chroot}/{self.namespace}"

    def url(self, default_namespace: str) -> str:
        """Return a URL for `parse_url`."""
        return f"{_URL_PREFIX}{self.hosts}{self.chroot}{namespace_query(self.namespace, default_namespace)}"


def parse_url(url: str) -> tuple[str, str | None]:
    """Return the hosts and the namespace, if given, of a ``zookeeper://`` URL."""
    if not url.startswith(_URL_PREFIX):
        raise UsageError(f"a ZooKeeper URL begins with {_URL_PREFIX}")
    parts = server_options.parse_url(STORE_NAME, url, f"{_URL_PREFIX}h1:2181,h2:2181/chroot")
    return parts.hosts + parts.path, parts.namespace
