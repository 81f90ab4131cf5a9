"""Records of a group itself: its numbers, its members and its seats."""

from dataclasses import dataclass

from smoothcluster.records.codec import Record


@dataclass(frozen=True, slots=True)
class Spec(Record):
    """The numbers of a group. `runner` is None until the first member has joined."""

    runner: int | None
    backup: int | None
    """None in the shape *all are Runners*."""
    shards: int
    joins: int
    """Rises by one with each member that joins, and with each change of the numbers: orders them all."""
    id: str

    @property
    def seats(self) -> int:
        """How many seats there are: none where all members are Runners."""
        return 0 if self.backup is None else self.runner or 0


@dataclass(frozen=True, slots=True)
class Member(Record):
    """One incarnation of a member; lives on its lease."""

    name: str
    incarnation: str
    join: int
    host: str
    pid: int
    address: str
    port: int
    """Where its death can be noticed; 0 if nowhere."""
    concurrency: int
    running: bool
    """Whether it works, or was only constructed so far."""
    seat: int | None
    id: str
    capacity: int | None = None
    """Shards it takes at most; None for any number."""
    unfit: str | None = None
    """Why it should not take over, as it found while it stood by; None if nothing speaks against it."""
    apart: bool = True
    """Whether it runs suspects in child processes, by what it knows; else alone in its own."""
    checked: int | None = None
    """When it last looked whether it could take over, in seconds since 1970 by its own clock. For people."""


@dataclass(frozen=True, slots=True)
class Seat(Record):
    """A licence to be a Runner."""

    holder: str | None
    id: str
    closed: int = 0
    """At which count of `Spec.joins` there was one seat too many: nobody takes it on an older spec than that."""
