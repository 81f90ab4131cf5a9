"""Parse server addresses, URLs and TLS files."""

import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from smoothcluster.backend import check_key
from smoothcluster.errors import UsageError, refuse_credentials

_URL_PREFIX = "etcd://"
DEFAULT_NAMESPACE = "smoothcluster"


@dataclass(frozen=True, slots=True)
class Pem:
    """TLS files as gRPC takes them: authorities (None for gRPC's own), client key and client certificate."""

    ca: bytes | None
    key: bytes | None
    certificate: bytes | None

    @classmethod
    def read(cls, ca: str | None, certfile: str | None, keyfile: str | None) -> "Pem":
        """Read the files. Raise UsageError if a file is unusable: gRPC itself would only fail to connect."""
        try:
            context = ssl.create_default_context(cafile=ca)
            if certfile:
                context.load_cert_chain(certfile, keyfile, password=_no_password)
            key, certificate = keyfile or certfile, certfile
            return cls(*(Path(each).read_bytes() if each else None for each in (ca, key, certificate)))
        except (OSError, ValueError) as error:
            raise UsageError(
                f"TLS: cannot use ca={ca!r}, certfile={certfile!r}, keyfile={keyfile!r}: {error}"
            ) from None


def _no_password() -> str:
    raise ValueError("the key has a password, and gRPC cannot read such a key")


def parse_hosts(hosts: str, namespace: str) -> list[str]:
    """Return the servers in ``h1:2379,h2:2379``. Raise UsageError with the reason if the text is invalid."""
    if "://" in hosts:
        raise UsageError("EtcdBackend takes hosts, not a URL: use EtcdBackend.from_url or connect for a URL")
    refuse_credentials("etcd", hosts)
    if "?" in hosts:
        raise UsageError("etcd: hosts must not contain options; pass options as keywords")
    try:
        check_key(namespace)
        return [_server(each) for each in hosts.split(",")]
    except ValueError as error:
        raise UsageError(f"etcd: invalid hosts {hosts!r} or namespace {namespace!r}: {error}") from None


def _server(text: str) -> str:
    parts = urlsplit(f"//{text.strip()}")
    if not parts.hostname or parts.path or parts.fragment:
        raise ValueError(f"{text!r} is not host:port")
    return f"{f'[{parts.hostname}]' if ':' in parts.hostname else parts.hostname}:{parts.port or 2379}"


def format_url(servers: list[str], namespace: str) -> str:
    """Return a URL for `parse_url`."""
    return f"{_URL_PREFIX}{','.join(servers)}{'' if namespace == DEFAULT_NAMESPACE else f'?namespace={namespace}'}"


def parse_url(url: str) -> tuple[str, str | None]:
    """Return the hosts and the namespace, if given, of an ``etcd://`` URL."""
    if not url.startswith(_URL_PREFIX):
        raise UsageError(f"an etcd URL begins with {_URL_PREFIX}")
    refuse_credentials("etcd", url)
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise UsageError(f"etcd: invalid URL: {error}") from None
    query = parse_qs(parts.query, keep_blank_values=True)
    if query.keys() - {"namespace"} or parts.fragment or parts.path.strip("/"):
        raise UsageError(
            f"an etcd URL is {_URL_PREFIX}h1:2379,h2:2379, without a path, and takes only the option ?namespace="
        )
    return parts.netloc, query.get("namespace", [None])[-1]
