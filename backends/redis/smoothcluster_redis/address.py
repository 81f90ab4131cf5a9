"""Parse users' hosts and URLs into the addresses of servers."""

from dataclasses import dataclass

from smoothcluster import server_options
from smoothcluster.backend import check_key
from smoothcluster.errors import UsageError
from smoothcluster.server_options import format_server, namespace_query, parse_servers

STORE_NAME = "Redis"
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
        pairs = tuple(parse_servers(STORE_NAME, hosts, _DEFAULT_PORT if service is None else _SENTINEL_PORT))
        try:
            if not 0 <= db < 2**31:
                raise ValueError("the number of a database is 0 or more")
            for part in (namespace, *([] if service is None else [service])):
                if "/" in check_key(part):
                    raise ValueError(f"{part!r} must not contain a slash")
        except ValueError as error:
            raise UsageError(f"Redis: invalid database, service or namespace: {error}") from None
        return cls(pairs, db, service, namespace, tls)

    @property
    def where(self) -> str:
        """The hosts as text: ``h1:6379,h2:6379``."""
        return ",".join(format_server(*pair) for pair in self.hosts)

    @property
    def url(self) -> str:
        """The URL, from which `parse_url` makes an equal address."""
        scheme = f"redis{'s' if self.tls else ''}{'+sentinel' if self.service else ''}"
        query = namespace_query(self.namespace, DEFAULT_NAMESPACE)
        return f"{scheme}://{self.where}/{f'{self.service}/' if self.service else ''}{self.db}{query}"


def parse_url(url: str, namespace: str | None) -> tuple[str, Address]:
    """Return the hosts, as written, and the address of a Redis URL. *namespace* overrides a namespace in the URL."""
    scheme, separator, _ = url.partition("://")
    scheme, _, sentinel = scheme.partition("+")
    if not separator or scheme not in ("redis", "rediss") or sentinel not in ("", "sentinel"):
        raise UsageError("a Redis URL begins with redis://, rediss://, redis+sentinel:// or rediss+sentinel://")
    form = f"{scheme}+sentinel://s1:26379,s2:26379/service/0" if sentinel else f"{scheme}://h:6379/0"
    parts = server_options.parse_url(STORE_NAME, url, form)
    path = parts.path.strip("/").split("/")
    service = path.pop(0) if sentinel else None
    db = "/".join(path) or "0"
    if service == "" or not (db.isascii() and db.isdecimal() and len(db) < 11):
        raise UsageError(f"a Redis URL ends in the {'service and the ' if sentinel else ''}database, as in {form}")
    named = DEFAULT_NAMESPACE if parts.namespace is None else parts.namespace
    address = Address.of(parts.hosts, int(db), service, namespace or named, tls=scheme == "rediss")
    return parts.hosts, address
