"""The coordinator's interface for running tasks in child processes. The simulator has a separate implementation."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Protocol, final

from smoothcluster.pool.protocol import always
from smoothcluster.pool.run import Run


class Apart(Protocol):
    """Child processes for tasks that may kill."""

    every: bool
    """Whether all tasks run in children, not only suspects."""

    @property
    @abstractmethod
    def able(self) -> bool | None:
        """Whether children can run the handler; None while unknown."""

    @abstractmethod
    def ready(self, waiting: int) -> int:
        """Return how many suspects may run in children at once; start what *waiting* tasks need, if nothing is up."""

    @abstractmethod
    def disturbed(self, since: float) -> bool:
        """Whether a child without a task has died since this time of the monotonic clock."""

    @abstractmethod
    def run(self, run: Run, can_start: Callable[[Run], bool] = always) -> None:
        """Run the task in a child and fill in the outcome. Blocks the calling worker of the pool until the end.

        The wait for a child may be long, so *can_start* is called once more before the task starts. Never raises.
        """


@final
class NoChildren(Apart):
    """The implementation for a handler that no child can run."""

    every = False

    @property
    def able(self) -> bool | None:
        return False

    def ready(self, waiting: int) -> int:  # noqa: ARG002
        return 0

    def disturbed(self, since: float) -> bool:  # noqa: ARG002
        return False

    def run(self, run: Run, can_start: Callable[[Run], bool] = always) -> None:
        raise NotImplementedError
