"""Connection settings of a client, and the state shared by all parts of the client."""

import ssl
import threading
from dataclasses import dataclass, field

from smoothcluster.errors import UsageError
from smoothcluster.lifetime import ClientLifetime
from smoothcluster_redis.address import Address


@dataclass(frozen=True, slots=True)
class Credentials:
    """A username, by default Redis's own ``default``, and a password; None for both without authentication."""

    username: str | None
    password: str | None = field(repr=False)

    def __post_init__(self) -> None:
        if self.username is not None and self.password is None:
            raise UsageError("Redis: a username needs a password")


@dataclass(frozen=True, slots=True)
class Settings:
    """How to reach the servers, and the Sentinels if any."""

    address: Address
    timeout: float
    tls: ssl.SSLContext | None
    credentials: Credentials
    sentinel_credentials: Credentials

    def __post_init__(self) -> None:
        if not self.timeout > 0:
            raise UsageError("Redis: timeout must be positive")


@dataclass(slots=True)
class ClientState:
    """State of a client, shared by its parts."""

    lifetime: ClientLifetime
    lock: threading.Lock = field(default_factory=threading.Lock)
    warned_of: set[tuple[str, int]] = field(default_factory=set[tuple[str, int]])
    """Servers whose settings the client has checked, and warned of in the log; guarded by the lock."""
    warned_of_password: bool = False
    """Whether the log has a warning about a password over plain TCP; guarded by the lock."""
    closed: threading.Event = field(default_factory=threading.Event)
    """Set at the end of the lifetime, for the threads of the watches."""
