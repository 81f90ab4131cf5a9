"""A job with many ids in the store, and repeats among what is submitted: each task runs once, and the counts add up."""

from collections.abc import Iterable, Iterator

from cluster.group import NewGroup, named

from smoothcluster import Task
from smoothcluster.backend import Create
from smoothcluster.jobs.chunks import digest
from smoothcluster.records.keys import Keys

KEYS_OF_IDS = 300
IDS_OF_KEY = 64


def tasks(names: Iterable[str]) -> Iterator[Task]:
    """One task after the other, as from a generator."""
    return (Task(id=name) for name in names)


def test_a_new_owner_skips_what_a_job_with_many_ids_has_seen(new_group: NewGroup) -> None:
    """The ids are loaded in several slices; those in the first and in the last of them are known afterwards."""
    group = new_group(runner=1, backup=0, shards=1)
    known = named(KEYS_OF_IDS * IDS_OF_KEY, "known")
    directory = Keys(group.name).seen("j", 0)
    for first in range(0, KEYS_OF_IDS, 50):
        group.backend.commit(
            [],
            [
                Create(
                    f"{directory}/{number:010d}.0",
                    b"".join(map(digest, known[number * IDS_OF_KEY : (number + 1) * IDS_OF_KEY])),
                )
                for number in range(first, first + 50)
            ],
        )
    group.start(1)
    job = group.cluster.submit(tasks([*known[::100], *named(20, "new"), known[-1], *named(20, "new")]), "j")
    group.finish(job, named(20, "new"))
    assert job.progress().skipped == len(known[::100]) + 1 + 20
    assert group.status()["tasks"]["skipped"] == job.progress().skipped


def test_the_repeats_of_a_generator_are_skipped_in_all_shards(new_group: NewGroup) -> None:
    """Also while two members share the work, and one of them dies."""
    group = new_group(runner=2, backup=0)
    group.start(2)
    group.converged()
    job = group.cluster.submit(tasks(name for _ in range(3) for name in named(200)), "j")
    group.progressed(20)
    group.members[0].kill()
    group.finish(job, named(200))
    assert job.progress().skipped == 400
