"""Parse users' hosts and URLs into the addresses of servers, and load the files for TLS."""

import ssl
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from smoothcluster.backend import check_key
from smoothcluster.errors import UsageError, refuse_credentials

DEFAULT_NAMESPACE = "smoothcluster"
_DEFAULT_PORT = 6379
_SENTINEL_PORT = 26379


@dataclass(frozen=True, slots=True)
class Address:
    """Servers or Sentinels, and the database and namespace on the servers."""

    hosts: tuple[tuple[str, int], ...]
    db: int
    service: str | None
    """The primary's name at the Sentinels; None if *hosts* are the servers themselves."""
    namespace: str
    tls: bool

    @classmethod
    def of(cls, hosts: str, db: int, service: str | None, namespace: str, *, tls: bool) -> "Address":
        """Parse hosts such as ``h1:6379,h2:6379``. Raise UsageError if an argument is not valid."""
        if "://" in hosts:
            raise UsageError("RedisBackend takes hosts, not a URL: use RedisBackend.from_url or connect for a URL")
        refuse_credentials("Redis", hosts)
        if "?" in hosts:
            raise UsageError("Redis: hosts must not contain options; pass options as keywords")
        try:
            port = _DEFAULT_PORT if service is None else _SENTINEL_PORT
            pairs = tuple(_server(each, port) for each in hosts.split(","))
            if not 0 <= db < 2**31:
                raise ValueError(f"{db} is not the number of a database")
            for part in (namespace, *([] if service is None else [service])):
                if "/" in check_key(part):
                    raise ValueError(f"{part!r} must not contain a slash")
        except ValueError as error:
            raise UsageError(
                f"Redis: invalid hosts {hosts!r}, database {db!r}, service or namespace: {error}"
            ) from None
        return cls(pairs, db, service, namespace, tls)

    @property
    def where(self) -> str:
        """The hosts as text: ``h1:6379,h2:6379``."""
        return ",".join(format_address(*pair) for pair in self.hosts)

    @property
    def url(self) -> str:
        """The URL, from which `parse_url` makes an equal address."""
        scheme = f"redis{'s' if self.tls else ''}{'+sentinel' if self.service else ''}"
        query = "" if self.namespace == DEFAULT_NAMESPACE else f"?namespace={self.namespace}"
        return f"{scheme}://{self.where}/{f'{self.service}/' if self.service else ''}{self.db}{query}"


def format_address(host: str, port: int) -> str:
    """Write the address of a server as ``host:port``, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _server(text: str, port: int) -> tuple[str, int]:
    parts = urlsplit(f"//{text.strip()}")
    if not parts.hostname or parts.path:
        raise ValueError(f"{text!r} is not host:port")
    return parts.hostname, parts.port or port


def parse_url(url: str, namespace: str | None) -> tuple[str, Address]:
    """Return the hosts, as written, and the address of a Redis URL. *namespace* overrides a namespace in the URL."""
    scheme, separator, rest = url.partition("://")
    scheme, _, sentinel = scheme.partition("+")
    if not separator or scheme not in ("redis", "rediss") or sentinel not in ("", "sentinel"):
        raise UsageError("a Redis URL begins with redis://, rediss://, redis+sentinel:// or rediss+sentinel://")
    refuse_credentials("Redis", rest)
    try:
        parts = urlsplit(f"//{rest}")
    except ValueError as error:
        raise UsageError(f"Redis: invalid URL: {error}") from None
    query = parse_qs(parts.query, keep_blank_values=True)
    if query.keys() - {"namespace"} or parts.fragment:
        raise UsageError(f"a Redis URL takes only the option namespace, not {', '.join(sorted(query)) or '#'}")
    path = parts.path.strip("/").split("/")
    service = path.pop(0) if sentinel else None
    db = "/".join(path) or "0"
    if service == "" or not db.isdecimal():
        form = f"{scheme}+sentinel://s1:26379,s2:26379/service/0" if sentinel else f"{scheme}://h:6379/0"
        raise UsageError(f"a Redis URL ends in the {'service and the ' if sentinel else ''}database, as in {form}")
    named = query.get("namespace", [DEFAULT_NAMESPACE])[-1]
    address = Address.of(parts.netloc, int(db), service, namespace or named, tls=scheme == "rediss")
    return parts.netloc, address


def tls_context(
    ca: str | None, certfile: str | None, keyfile: str | None, password: str | None, *, verify: bool, hostname: bool
) -> ssl.SSLContext:
    """Return the TLS context for connections. Raise UsageError if a file cannot be used."""
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
