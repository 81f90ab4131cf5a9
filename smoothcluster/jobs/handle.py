"""A handle on one job, for clients."""

from collections.abc import Iterator

from smoothcluster.jobs.access import Access
from smoothcluster.jobs.progress import Progress, read_progress
from smoothcluster.jobs.results import read_outcomes
from smoothcluster.model import Outcome


class JobHandle:
    """One job of a group."""

    def __init__(self, access: Access, job_id: str) -> None:
        self.id = job_id
        self._access = access

    def __repr__(self) -> str:
        return f"<job {self.id} of group {self._access.group}>"

    def progress(self) -> Progress:
        """How far it is, in tasks. `Progress.finished` is exact, not a guess."""
        access, spec = self._access, self._access.spec()
        return access.ask(lambda: read_progress(access.backend, access.keys, self.id, spec, access.report))

    def wait(self, timeout: float | None = None) -> Progress:
        """Wait until every task has its outcome; raise TimeoutError after *timeout* seconds."""
        clock = self._access.clock
        deadline = None if timeout is None else clock.monotonic() + timeout
        pause = 0.01
        while not (progress := self.progress()).finished:
            if deadline is not None and clock.monotonic() >= deadline:
                raise TimeoutError(f"job {self.id!r} is not finished after {timeout} s: {progress}")
            clock.sleep(pause)
            pause = min(pause * 1.5, 0.25)
        return progress

    def results(self) -> Iterator[Outcome]:
        """The outcomes recorded so far, shard by shard, read as they are asked for."""
        for shard in range(self._access.spec().shards):
            yield from read_outcomes(self._access, self._access.keys.results(self.id, shard))
