"""A job whose handlers add tasks without end stops at its bound, and finishes."""

from cli_kit import invoke_on
from cluster.group import NewGroup

from smoothcluster import Task

BOUND = 200


def test_an_endless_crawl_ends_at_its_bound(new_group: NewGroup, store: str) -> None:
    """Each task adds three more, in three Runners at once; what is beyond is refused, counted, told and shown."""
    group = new_group(runner=3, backup=0)
    group.start(3)
    job = group.cluster.submit([Task(id="t", meta={"spawn": 3, "endless": True})], max_tasks=BOUND)
    progress = job.wait(90)
    assert BOUND <= progress.total <= BOUND + 3 * 32, "a commit for each shard beyond, of some tasks each"
    assert (progress.done, progress.finished) == (progress.total, True)
    assert progress.refused == 3 * progress.total + 1 - progress.total
    assert len(list(job.results())) == progress.total
    assert invoke_on(store)("wait", job.id, "--group", group.name).stderr.endswith(f"; {progress.refused} refused\n")
    assert (
        f"job {job.id}: {progress.refused} tasks added by handlers were refused"
        in invoke_on(store)("status", "--group", group.name).output
    )
    told = [event["member"] for event in group.cluster.events() if event["kind"] == "tasks_refused"]
    assert told
    assert len(told) == len(set(told)), "once each"
