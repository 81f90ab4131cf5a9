"""Records of a group: the numbers (spec), the members and the seats."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from smoothcluster.records.codec import Record

MOST_RUNNERS = 4096
"""The most Runners of a group: a typing error must not fill the store with shards."""

MOST_SHARDS = 4 * MOST_RUNNERS


@dataclass(frozen=True, slots=True)
class Spec(Record):
    """The numbers of a group. `runner` is None until the first member has joined."""

    runner: int | None
    backup: int | None
    """None in the shape *all are Runners*."""
    shards: int
    joins: int
    """Counter of changes to this record. Orders the changes, and with `Member.created` the joins."""
    id: str
    changing: str | None = None
    """Id of the commit by which a joining member announced other numbers; None if no member wants to change them."""
    results: str | None = None
    """The URL of the results sink, without credentials; None if outcomes stay in the store."""
    results_id: str | None = None
    """The name of the group in the sink: the mark there, and part of the names of jobs."""

    FIELD_LIMITS: ClassVar[Mapping[str, tuple[int, int]]] = {
        "runner": (1, MOST_RUNNERS),
        "backup": (0, MOST_RUNNERS),
        "shards": (1, MOST_SHARDS),
        "joins": (0, 2**53),
    }

    @property
    def seats(self) -> int:
        """The number of seats: 0 where all members are Runners."""
        return 0 if self.backup is None else self.runner or 0


@dataclass(frozen=True, slots=True)
class Member(Record):
    """An incarnation of a member. The record lives as long as the member's lease."""

    name: str
    incarnation: str
    join: int
    """The count of `Spec.joins` when the member joined, or went to the end of the queue."""
    host: str
    pid: int
    address: str
    port: int
    """Port at ``address`` where peers can notice the member's death; 0 if there is none."""
    concurrency: int
    running: bool
    """Whether the member runs. False means: constructed, but not running."""
    seat: int | None
    id: str
    capacity: int | None = None
    """The most shards the member takes; None for any number."""
    unfit: str | None = None
    """Reason not to take over, found by the member's own check while on standby; None if there is no reason."""
    apart: bool = True
    """Whether the member expects to run suspects in child processes; if False, they run alone in its own process."""
    checked: int | None = None
    """Time of the member's last check for fitness to take over, in seconds since 1970 by its clock. For people."""
    results_wait: str | None = None
    """Why the member's outcomes wait in the store on their way to the results sink; None if none waits for long."""

    named: bool = False
    """Whether the name has a key under ``names``, which goes with this record."""
    created: int = field(default=0, compare=False)
    """When the record was created, as counted by the store. Readers take this from the store, not from the record."""

    @property
    def place(self) -> tuple[int, int]:
        """The place in the order of joins, which is total and the same for all readers."""
        return self.join, self.created

    FIELD_LIMITS: ClassVar[Mapping[str, tuple[int, int]]] = {"port": (0, 65535), "seat": (0, MOST_RUNNERS - 1)}


@dataclass(frozen=True, slots=True)
class Seat(Record):
    """A licence to be a Runner."""

    holder: str | None
    id: str
    closed: int = 0
    """The count of `Spec.joins` when a resize closed the seat. Members with an older spec must not claim the seat."""
