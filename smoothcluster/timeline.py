"""The history of a store as one client has seen it: notices a store that is older than an earlier answer.

etcd's revision, ZooKeeper's transaction id and sqlite's commit number only grow while a store goes on with its own
data. A lower position, or another identity, means a rollback: somebody emptied the store, restored a backup or replaced
the store. Afterwards the store hands out the same numbers again, for other contents. So each rollback begins a new
*era* of the client. A version names the era in which the client read the version, and the client refuses a version of a
former era. So callers need not notice a rollback in time: the client refuses their commits, and their next read shows
new versions.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple, TypeVar, final

from smoothcluster.backend import AtVersion, Change, Condition, Delete, Update

Part = TypeVar("Part", bound=Condition | Change)


class Mark(NamedTuple):
    """A moment of a timeline, noted before a request is sent."""

    era: int
    """The number of rollbacks seen."""
    position: int
    """The latest position in any answer."""

    def version(self, number: object) -> str:
        """Return the version for *number*, read in answer to a request sent at this moment.

        If the answer itself shows a rollback, the version belongs to the former era: the client refuses the version,
        and the caller reads again.
        """
        return f"{number}~{self.era}" if self.era else str(number)


@final
class Timeline:
    """The positions of a store in the answers to one client. Any thread may call the methods."""

    def __init__(self) -> None:
        self.on_rollback: Callable[[], None] = lambda: None
        """Called after each rollback, in the thread that noticed the rollback."""
        self._lock = threading.Lock()
        self._now = Mark(0, 0)
        self._identity = ""
        self._rolled_back = "no rollback seen"

    @property
    def position(self) -> int:
        """The latest position in any answer of this era."""
        return self._now.position

    @property
    def history(self) -> str:
        """The history for people and for comparison: changes with each rollback."""
        return ", ".join(filter(None, (self._identity, self._rolled_back)))

    def mark(self) -> Mark:
        """Return the present moment. Call before the request: another thread may hear of a later position meanwhile."""
        return self._now

    def advance(self, position: int, since: Mark, identity: str = "", *, latest: bool = True) -> bool:
        """Take in the *position* in the answer to a request sent at *since*; return whether a rollback shows.

        An answer is *latest* if the store had to include every commit acknowledged before the request.
        """
        with self._lock:
            # Another thread has noticed a rollback since: the answer may come from before or after.
            if since.era != self._now.era:
                return False
            known, self._identity = self._identity or identity, identity or self._identity
            if self._identity == known and (position >= since.position or not latest):
                self._now = Mark(since.era, max(position, self._now.position))
                return False
            self._rolled_back = f"rollback {since.era + 1} seen by this client: from {self._now.position} to {position}"
            self._now = Mark(since.era + 1, position)
        # Outside the lock: the callback takes locks of its own.
        self.on_rollback()
        return True

    def rolled_back_since(self, since: Mark) -> bool:
        """Return whether a rollback has shown since *since*.

        A listing of several requests then begins again: its answers may be from two stores.
        """
        return self._now.era != since.era

    def outdated(self, parts: Sequence[Condition | Change]) -> str | None:
        """Return the first key of *parts* with a version of a former era; None if there is none."""
        era = self._now.era
        if era:
            for part in parts:
                version = part.version if isinstance(part, AtVersion | Update | Delete) else None
                if version is not None and version.partition("~")[2] != str(era):
                    return part.key
        return None


def numbered(parts: Sequence[Part]) -> Sequence[Part]:
    """Return *parts* with the store's own numbers as versions."""
    return [_numbered(part) for part in parts]


def _numbered(part: Part) -> Part:
    if isinstance(part, AtVersion | Update | Delete) and part.version is not None and "~" in part.version:
        return replace(part, version=part.version.partition("~")[0])
    return part
