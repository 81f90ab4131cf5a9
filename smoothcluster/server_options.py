"""Options of stores with servers: hosts and URLs without credentials, TLS, and passwords over plain TCP.

All adapters of servers share these rules, so a rule holds for every store:

* A URL holds no credentials, because logs and lists of processes show URLs. An error shows no part of a text that may
  hold a password.
* An option of TLS either switches TLS on, or raises UsageError while TLS is off.
* A password that leaves this machine over plain TCP causes a warning.
"""

import logging
import re
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import parse_qs, quote

from smoothcluster.errors import UsageError

OPTIONS_VARIABLE = "SMOOTHCLUSTER_OPTIONS"
"""The environment variable with the path of a file: a JSON object with options of the backend."""

_CREDENTIALS_ADVICE = (
    "programs pass username= and password= to connect or to the backend; commands read both from the file named by"
    f" {OPTIONS_VARIABLE}"
)

_log = logging.getLogger("smoothcluster")

_SECRET_OPTION_PATTERN = re.compile(r"(?:^|&)[^=&]*(?:user|pass|pwd|auth|token|secret)[^=&]*=", re.IGNORECASE)
_NO_PORT_PATTERN = re.compile(r"[^\[:]*:(?![0-9]*$).+", re.DOTALL)
"""A host and a colon, without a number behind the colon."""
_SERVER_PATTERN = re.compile(r"(\[[0-9A-Fa-f:.]+(?:%\w+)?\]|[^\s\[\]:@/\\?#%,]+)(?::([0-9]{1,5}))?")


class StoreUrl(NamedTuple):
    """The parts of a store's URL."""

    scheme: str
    hosts: str
    path: str
    """Begins with a slash, or is empty."""
    namespace: str | None


def refuse_credentials(store: str, text: str, advice: str = _CREDENTIALS_ADVICE) -> None:
    """Raise UsageError if *text*, a URL or hosts, may hold credentials. The error shows no part of *text*.

    *advice* tells where credentials belong.

    A password may hold any character, so a parser may cut a password into host, port, path, query and fragment. Call
    this function before any parser.
    """
    place, _, query = text.partition("?")
    if "@" in text or "%40" in place or _SECRET_OPTION_PATTERN.search(query):
        raise UsageError(
            f"{store}: a URL or hosts must not contain a username or password: {advice}. In a namespace,"
            " write %40 in place of an at sign"
        )
    hosts = re.split("[/?#]", text.partition("://")[2] or text)[0]
    for number, host in enumerate(hosts.split(","), 1):
        if _NO_PORT_PATTERN.fullmatch(host.strip()) and not _is_address(host.strip()):
            raise UsageError(
                f"{store}: server {number} of the hosts is not host:port, because the text after the colon is no port."
                " If the text is a password, the @ and the host are missing; but a URL or hosts must not contain"
                f" a username or password: {advice}"
            )


def _is_address(host: str) -> bool:
    """Whether *host* is an IPv6 address, without the brackets that a URL needs."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def parse_url(store: str, url: str, form: str) -> StoreUrl:
    """Return the parts of *url*. *form* is an example of a URL, for the error."""
    refuse_credentials(store, url)
    scheme, separator, rest = url.partition("://")
    place, _, query = rest.partition("?")
    options = parse_qs(query, keep_blank_values=True)
    if not separator or "#" in rest or options.keys() - {"namespace"} or (query and not options):
        raise UsageError(f"{store}: a URL looks like {form}, and takes only the option ?namespace=")
    hosts, slash, path = place.partition("/")
    return StoreUrl(scheme, hosts, slash + path, options.get("namespace", [None])[-1])


def namespace_query(namespace: str, default: str) -> str:
    """Return the query of a URL for *namespace*, from which `parse_url` returns *namespace*; empty for *default*."""
    return "" if namespace == default else f"?namespace={quote(namespace, safe='/:=')}"


def parse_servers(store: str, hosts: str, default_port: int) -> list[tuple[str, int]]:
    """Return host and port of each server in *hosts*, such as ``h1:6379,h2``. Raise UsageError if one is invalid.

    The error shows no part of *hosts*: a text without a valid port may be a password.
    """
    if "://" in hosts:
        raise UsageError(f"{store}: hosts are not a URL; use from_url or connect for a URL")
    refuse_credentials(store, hosts)
    servers: list[tuple[str, int]] = []
    for number, each in enumerate(hosts.split(","), 1):
        match = _SERVER_PATTERN.fullmatch(each.strip())
        port = int(match[2] or default_port) if match else 0
        if match is None or not 0 < port < 65536:
            raise UsageError(
                f"{store}: server {number} of the hosts is not host:port; write names or addresses with or without a"
                f" port, as in h1:{default_port},h2 or [::1]:{default_port}, and pass credentials as options"
            )
        servers.append((match[1].strip("[]").lower(), port))
    return servers


def format_server(host: str, port: int) -> str:
    """Write the address of a server as ``host:port``, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsOptions:
    """The TLS options of a store. Raise UsageError if an option would have no effect."""

    use_ssl: bool
    ca: str | None
    """File with the authorities for checking the servers' certificates; None for the system's."""
    certfile: str | None
    """File with the client's certificate; None if the client needs none."""
    keyfile: str | None
    keyfile_password: str | None = None
    verify_certs: bool | None = None
    """None for True. None tells an option left out from an option without effect."""
    check_hostname: bool | None = None
    """As `verify_certs`."""

    def __post_init__(self) -> None:
        """Raise UsageError for an option that would be passed over."""
        for name in ("ca", "certfile", "keyfile"):
            if getattr(self, name) == "":  # For example from an empty environment variable.
                raise UsageError(f"TLS: {name} is empty; name a file, or leave the option out")
        for name in ("keyfile", "keyfile_password"):
            if getattr(self, name) is not None and self.certfile is None:
                raise UsageError(f"TLS: {name} needs certfile, the certificate that belongs to the key")
        for name in ("verify_certs", "check_hostname"):
            if getattr(self, name) is not None and not self.on:
                raise UsageError(
                    f"TLS: {name} has no effect, because TLS is off; switch TLS on (use_ssl or ca, on Redis rediss://),"
                    " or leave the option out"
                )

    @property
    def on(self) -> bool:
        """Whether connections use TLS: each of *use_ssl*, *ca* and *certfile* switches TLS on."""
        return bool(self.use_ssl or self.ca or self.certfile)

    def context(self) -> ssl.SSLContext | None:
        """Return the TLS context for connections; None if TLS is off. Raise UsageError if a file cannot be used."""
        if not self.on:
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca)
            if self.certfile:
                context.load_cert_chain(self.certfile, self.keyfile, self.keyfile_password)
        except (OSError, ValueError) as error:
            raise self.unusable(error) from None
        context.check_hostname = self.verify_certs is not False and self.check_hostname is not False
        if self.verify_certs is False:
            context.verify_mode = ssl.CERT_NONE
        return context

    def unusable(self, error: Exception) -> UsageError:
        """Return the error for files that cannot be used."""
        return UsageError(
            f"TLS: cannot use ca={self.ca!r}, certfile={self.certfile!r}, keyfile={self.keyfile!r}: {error}"
        )


def is_loopback(host: str) -> bool:
    """Whether *host* is an address of this machine alone. Other names than localhost may lead anywhere."""
    try:
        address = ip_address(host)
    except ValueError:
        return host.lower() == "localhost"
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def warn_of_plain_password(store: str, hosts: Iterable[str]) -> bool:
    """Log a warning if a password for *hosts* leaves this machine over plain TCP; return whether it does."""
    far = [host for host in hosts if not is_loopback(host)]
    if far:
        _log.warning(
            "%s: the password for %s is sent over plain TCP, so everybody on the way can read it; switch TLS on",
            store,
            ", ".join(far),
        )
    return bool(far)
