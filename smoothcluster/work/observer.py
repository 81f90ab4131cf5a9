"""The interface through which a workload reports its news to the member."""

from abc import abstractmethod
from typing import Protocol


class WorkloadObserver(Protocol):
    """Receives the news of a `Workload`. The workload's own thread makes every call except `wake`."""

    @abstractmethod
    def wake(self) -> None:
        """A shard has new tasks: call `Workload.step` soon. Any thread may make this call."""

    @abstractmethod
    def started(self, shard: int) -> None:
        """Tasks of *shard* went to the pool."""

    @abstractmethod
    def lost(self, shard: int) -> None:
        """The store refused a commit, because *shard* has another owner."""

    @abstractmethod
    def behind(self, shard: int, kept: int, acknowledged: int) -> None:
        """The store went back: the record of the owned *shard* has *kept* commits of *acknowledged* ones."""
