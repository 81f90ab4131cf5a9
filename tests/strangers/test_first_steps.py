"""The first steps of a stranger: a submit that is called wrongly, and one that is cut short."""

import re
import secrets
from collections.abc import Iterator
from contextlib import closing

import pytest
from cluster.group import PATIENCE

from smoothcluster import Cluster, ClusterCrawler, Task, connect
from smoothcluster.errors import UsageError

TASKS = [Task(id=str(number)) for number in range(5)]


def cut_short() -> Iterator[Task]:
    """Some of the tasks; then the file of the stranger turns out to be broken."""
    yield from TASKS[:3]
    raise ValueError("no such line")


@pytest.mark.parametrize(("again", "total"), [(TASKS, len(TASKS)), ([], 0)], ids=["completed", "ended"])
def test_what_the_error_says_ends_the_job(store: str, again: list[Task], total: int) -> None:
    """A wrong call leaves nothing behind. After a failure half-way, the advice leads to the job's end."""
    group = secrets.token_hex(6)
    with closing(connect(store)) as backend, closing(connect(store)) as members_backend:
        cluster = Cluster(backend, group)
        for wrong in ("http://x/", None, ["http://x/"], iter(["http://x/"])):
            with pytest.raises(UsageError, match="submit takes Tasks"):
                cluster.submit(wrong)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        assert cluster.absent()

        with pytest.raises(ValueError, match="no such line") as caught:
            cluster.submit(cut_short())
        (note,) = caught.value.__notes__
        job = re.findall(r"job='(\w+)'", note)[0]
        assert cluster.jobs() == {job: "open"}

        with ClusterCrawler(backend=members_backend, runner=1, group=group, handler=lambda task, context: None):
            cluster.submit(again, job)
            assert cluster.job(job).wait(PATIENCE).done == total
