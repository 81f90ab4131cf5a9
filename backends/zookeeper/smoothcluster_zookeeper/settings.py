"""Connection settings, shared by all sessions of a backend: servers, credentials, TLS, time limits and lifetime."""

from dataclasses import dataclass, field
from ssl import SSLContext

from smoothcluster.clock import SYSTEM_CLOCK
from smoothcluster.errors import UsageError
from smoothcluster.lifetime import ClientLifetime

_LEAST_SILENCE_SECONDS = 2.0
"""Shortest silence of a server in seconds, with no call waiting, before a change of server: the server may be busy."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How to reach the servers, and for how long: no call begins in another process, or after the *lifetime*."""

    lifetime: ClientLifetime
    hosts: str
    timeout: float
    credentials: list[tuple[str, str]] = field(repr=False)
    tls: SSLContext | None

    @classmethod
    def of(
        cls,
        lifetime: ClientLifetime,
        hosts: str,
        timeout: float,
        username: str | None,
        password: str | None,
        tls: SSLContext | None,
    ) -> "Settings":
        """Check a user's options. Raise UsageError with the reason if they make no sense."""
        if (username is None) != (password is None):
            raise UsageError("ZooKeeper: username and password go together")
        if timeout <= 0:
            raise UsageError("ZooKeeper: timeout must be positive")
        return cls(lifetime, hosts, timeout, [] if username is None else [("digest", f"{username}:{password}")], tls)

    @property
    def share(self) -> float:
        """Seconds for trying each server. Time remains for other servers or a retry: a server may be starting."""
        return self.timeout / max(3, self.hosts.count(",") + 1)

    @property
    def patience(self) -> float:
        """Seconds of silence after which a session leaves a server."""
        return max(_LEAST_SILENCE_SECONDS, self.timeout)

    def deadline(self) -> float:
        """Return the deadline of a call begun now."""
        return SYSTEM_CLOCK.monotonic() + self.timeout
