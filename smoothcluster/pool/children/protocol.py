"""Running tasks apart from the member: what the coordinator needs to know of it. The simulator has its own."""

from abc import abstractmethod
from typing import Protocol, final

from smoothcluster.pool.run import Run


class Apart(Protocol):
    """Child processes for tasks that may kill."""

    every: bool
    """Whether all tasks run in children, not only suspects."""

    @property
    @abstractmethod
    def able(self) -> bool | None:
        """Whether children can run the handler; None as long as that is not known."""

    @abstractmethod
    def ready(self, waiting: int) -> int:
        """How many children there are, busy ones included, while *waiting* tasks could use one; has more brought up."""

    @abstractmethod
    def disturbed(self, since: float) -> bool:
        """Whether a child that was running nothing has died since then, by the monotonic clock."""

    @abstractmethod
    def run(self, run: Run) -> None:
        """Run it in a child and fill in what came of it. Called by a pool's worker, which it keeps."""


@final
class NoChildren(Apart):
    """Where no child can run the handler."""

    every = False

    @property
    def able(self) -> bool | None:
        return False

    def ready(self, waiting: int) -> int:  # noqa: ARG002
        return 0

    def disturbed(self, since: float) -> bool:  # noqa: ARG002
        return False

    def run(self, run: Run) -> None:
        raise NotImplementedError
