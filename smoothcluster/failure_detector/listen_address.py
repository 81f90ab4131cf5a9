"""Where a member listens: an address and ports of this machine, and the address by which other members reach them."""

import errno
import re
import socket
from dataclasses import dataclass, replace
from ipaddress import IPv6Address

from smoothcluster.errors import UsageError
from smoothcluster.server_options import is_loopback

LISTEN_FORM = "ADDRESS[:PORT[-PORT]][@ADVERTISED]"

_HOST_PATTERN = r"\[[^\[\]\s]+\]|[^\[\]\s:@]+"
_LISTEN_PATTERN = re.compile(
    rf"(?P<address>{_HOST_PATTERN})(?::(?P<first>[0-9]{{1,5}})(?:-(?P<last>[0-9]{{1,5}}))?)?(?:@(?P<advertised>{_HOST_PATTERN}))?"
)

_LOOPBACK_ADDRESS = "127.0.0.1"

WILDCARD_ADDRESSES = ("0.0.0.0", "::")  # noqa: S104  # only where the user asks for it


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """An address of this machine to listen on.

    `parse` reads the form ``ADDRESS[:PORT[-PORT]][@ADVERTISED]``.
    """

    address: str
    ports: range | None = None
    """The ports to try, in order; None for any free port."""
    advertised: str | None = None
    """The address to publish for other members; None for *address* itself."""

    @classmethod
    def parse(cls, text: object) -> "ListenAddress":
        """Parse *text*. Raise UsageError that shows the form."""
        match = _LISTEN_PATTERN.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise _unusable(text, "is not of this form")
        ports = None
        if match["first"]:
            first, last = int(match["first"]), int(match["last"] or match["first"])
            if not 0 < first <= last < 65536:
                raise _unusable(text, "has no port from 1 to 65535, or a range that ends before it begins")
            ports = range(first, last + 1)
        hosts = [_host(text, match[name]) if match[name] else None for name in ("address", "advertised")]
        if hosts[1] in WILDCARD_ADDRESSES:
            raise _unusable(text, "advertises an address at which nobody can be reached")
        return cls(hosts[0] or "", ports, hosts[1])

    def resolved(self) -> "ListenAddress":
        """Return the same with numeric addresses. Raise UsageError if a name has no address."""
        return replace(self, address=_resolve(self.address), advertised=self.advertised and _resolve(self.advertised))

    def taken(self) -> UsageError:
        """Return the error for ports that are all in use."""
        ports = self.ports or range(1)
        which = f"port {ports[0]} is" if len(ports) == 1 else f"all ports from {ports[0]} to {ports[-1]} are"
        return UsageError(
            f"listen: {which} in use at {self.address}: each member needs a port of its own; give more ports"
        )

    def refused(self, error: OSError) -> Exception:
        """Return the error for an address or a port which the system refuses, with the correction if known."""
        if error.errno == errno.EADDRNOTAVAIL:
            return UsageError(
                f"listen: {self.address} is no address of this machine; if other machines reach this machine there,"
                f" advertise the address, as in 0.0.0.0@{self.address}"
            )
        if error.errno == errno.EACCES:
            return UsageError("listen: only root may listen on this port; give ports above 1023")
        return error


def listen_address(text: object | None, *, one_machine: bool) -> ListenAddress | None:
    """Return the address for the *listen* option; None for the address by which this machine reaches other machines.

    Members of a group on *one_machine* listen on loopback alone: other machines have no business there.
    """
    if text is None:
        return ListenAddress(_LOOPBACK_ADDRESS) if one_machine else None
    found = ListenAddress.parse(text).resolved()
    if one_machine and not (is_loopback(found.address) and is_loopback(found.advertised or found.address)):
        raise _unusable(text, "is not loopback, and all members of this store are on this machine")
    return found


def _host(text: object, host: str) -> str:
    if not host.startswith("["):
        return host
    try:
        return str(IPv6Address(host[1:-1]))
    except ValueError:
        raise _unusable(text, "has no IPv6 address in the brackets") from None


def _unusable(text: object, why: str) -> UsageError:
    return UsageError(
        f"listen: {text!r:.100} {why}; give {LISTEN_FORM}, with IPv6 addresses in brackets, as in 10.0.0.7,"
        " 10.0.0.7:4000-4010, 0.0.0.0:4000@203.0.113.7 or [::]:4000"
    )


def _resolve(host: str) -> str:
    try:
        return str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0])
    except (OSError, ValueError) as error:
        raise UsageError(
            f"listen: cannot find the address of {host!r:.100}: {error}; give {LISTEN_FORM} with an address or a name"
            " that has an address"
        ) from error
