"""Parse server addresses, URLs and TLS files."""

import ssl
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from smoothcluster.backend import check_key
from smoothcluster.errors import UsageError, refuse_credentials

_URL_PREFIX = "zookeeper://"


@dataclass(frozen=True, slots=True)
class Address:
    """Servers, and the root znode of all data."""

    hosts: str
    chroot: str
    namespace: str

    @classmethod
    def of(cls, hosts: str, namespace: str) -> "Address":
        """Parse ``h1:2181,h2:2181/chroot``. Raise UsageError with the reason if the text is invalid."""
        if "://" in hosts:
            raise UsageError(
                "ZookeeperBackend takes hosts, not a URL: use ZookeeperBackend.from_url or connect for a URL"
            )
        refuse_credentials("ZooKeeper", hosts)
        if "?" in hosts:
            raise UsageError("ZooKeeper: hosts must not contain options; pass options as keywords")
        servers, _, chroot = hosts.strip().partition("/")
        try:
            pairs = [_server(each) for each in servers.split(",")]
            for part in (namespace, *filter(None, [chroot.strip("/")])):
                check_key(part)
            if f"{chroot.strip('/')}/{namespace}".lstrip("/").partition("/")[0] == "zookeeper":
                raise ValueError("the znode /zookeeper is reserved by ZooKeeper")
        except ValueError as error:
            raise UsageError(f"ZooKeeper: invalid hosts {hosts!r} or namespace {namespace!r}: {error}") from None
        names = [f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in pairs]
        return cls(",".join(names), f"/{chroot.strip('/')}".rstrip("/"), namespace)

    @property
    def root(self) -> str:
        """The root znode of all data."""
        return f"{self.chroot}/{self.namespace}"

    def url(self, default_namespace: str) -> str:
        """Return a URL for `parse_url`."""
        query = "" if self.namespace == default_namespace else f"?namespace={self.namespace}"
        return f"{_URL_PREFIX}{self.hosts}{self.chroot}{query}"


def _server(text: str) -> tuple[str, int]:
    parts = urlsplit(f"//{text.strip()}")
    if not parts.hostname or parts.path:
        raise ValueError(f"{text!r} is not host:port")
    return parts.hostname, parts.port or 2181


def parse_url(url: str) -> tuple[str, str | None]:
    """Return the hosts and the namespace, if given, of a ``zookeeper://`` URL."""
    if not url.startswith(_URL_PREFIX):
        raise UsageError(f"a ZooKeeper URL begins with {_URL_PREFIX}")
    refuse_credentials("ZooKeeper", url)
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise UsageError(f"ZooKeeper: invalid URL: {error}") from None
    query = parse_qs(parts.query, keep_blank_values=True)
    if query.keys() - {"namespace"} or parts.fragment:
        raise UsageError(f"a ZooKeeper URL takes only the option namespace, not {', '.join(sorted(query)) or '#'}")
    return parts.netloc + parts.path, query.get("namespace", [None])[-1]


def tls_context(
    ca: str | None, certfile: str | None, keyfile: str | None, password: str | None, *, verify: bool, hostname: bool
) -> ssl.SSLContext:
    """Return the TLS context. Raise UsageError if a file is unusable."""
    try:
        context = ssl.create_default_context(cafile=ca)
        if certfile:
            context.load_cert_chain(certfile, keyfile, password)
    except (OSError, ValueError) as error:
        raise UsageError(f"TLS: cannot use ca={ca!r}, certfile={certfile!r}, keyfile={keyfile!r}: {error}") from None
    context.check_hostname = verify and hostname
    if not verify:
        context.verify_mode = ssl.CERT_NONE
    return context
