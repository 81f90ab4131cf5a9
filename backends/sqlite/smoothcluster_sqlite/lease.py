"""A lease is a row in the table ``leases`` of the file."""

from collections.abc import Callable
from typing import final

from smoothcluster.backend import Lease


@final
class SqliteLease(Lease):
    """A lease in the sqlite file. *renew* and *revoke* do so, given the id; *renew* returns False if it is gone."""

    def __init__(self, lease: str, ttl: float, renew: Callable[[str], bool], revoke: Callable[[str], None]) -> None:
        self._id, self._ttl, self._renew, self._revoke = lease, ttl, renew, revoke

    @property
    def id(self) -> str:
        return self._id

    @property
    def ttl(self) -> float:
        return self._ttl

    def renew(self) -> bool:
        return self._renew(self._id)

    def revoke(self) -> None:
        self._revoke(self._id)
