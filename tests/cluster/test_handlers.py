"""What handlers return, raise and submit, and what is recorded of it."""

import pytest
from cluster.group import Group, NewGroup, named
from cluster.handlers import START

from smoothcluster import Outcome, State, Task

LARGEST = 256 * 1024


def run(group: Group, *tasks: Task, members: int = 1, wanted: set[str] | None = None) -> dict[str, Outcome]:
    """Submit *tasks* and have them run; the outcomes by task."""
    group.start(members)
    outcomes = group.finish(group.cluster.submit(tasks), wanted or {task.id for task in tasks})
    return {outcome.task_id: outcome for outcome in outcomes}


def test_a_handler_that_raises(group: Group) -> None:
    """The task has failed, and the error says why; others do not suffer."""
    found = run(group, Task(id="bad", meta={"raise": "no luck"}), Task(id="good"))
    assert (found["bad"].state, found["bad"].error, found["bad"].value) == (State.FAILED, "ValueError: no luck", None)
    assert (found["good"].state, found["good"].error, found["good"].value) == (State.DONE, None, "good")


def test_a_handler_that_returns_no_json(group: Group) -> None:
    """That is a failure, and the error says what it returned."""
    found = run(group, Task(id="bad", meta={"returns": "object"}))["bad"]
    assert found.state is State.FAILED
    assert "the handler returned object, which is not JSON" in str(found.error)


@pytest.mark.parametrize("handler", ["act", "act_async"])
def test_what_a_handler_may_return(new_group: NewGroup, handler: str) -> None:
    """256 KiB of JSON, and no more."""
    group = new_group(handler=handler)
    tasks = [Task(id="most", meta={"returns": LARGEST - 2}), Task(id="more", meta={"returns": LARGEST - 1})]
    found = run(group, *tasks, Task(id="object", meta={"returns": {"a": [1, 2.5, None, True, "ü"]}}))
    assert found["most"].value == "x" * (LARGEST - 2)
    assert (found["more"].state, found["more"].value) == (State.FAILED, None)
    assert f"of {LARGEST + 1} bytes of JSON; the limit is {LARGEST}" in str(found["more"].error)
    assert found["object"].value == {"a": [1, 2.5, None, True, "ü"]}


def test_many_large_results(group: Group) -> None:
    """Results of the largest size, many at once, are all recorded, though few fit into one commit."""
    tasks = [Task(id=name, meta={"returns": LARGEST - 2}) for name in named(60)]
    found = run(group, *tasks, members=3)
    assert {len(str(outcome.value)) for outcome in found.values()} == {LARGEST - 2}


def test_many_large_tasks(group: Group) -> None:
    """Tasks of nearly the largest size go through as well."""
    tasks = [Task(id=name, body="x" * (LARGEST - 100)) for name in named(40)]
    assert {outcome.state for outcome in run(group, *tasks, members=3).values()} == {State.DONE}


@pytest.mark.quick
def test_async_handlers(new_group: NewGroup) -> None:
    """Handlers that are `async def` run side by side on one thread, as many as there may be."""
    group = new_group(handler="act_async", concurrency=200)
    members = group.start(5)
    group.converged()  # Shards whose tasks are held stay where they are, and no Runner can run all tasks.
    job = group.submit(300, hold="gate")
    group.all_running(300)
    group.open("gate")
    outcomes = group.finish(job, named(300))
    assert {outcome.runner for outcome in outcomes} <= {member.name for member in members}


def test_async_handlers_of_a_runner_that_is_killed(new_group: NewGroup) -> None:
    """They are run again like any others."""
    group = new_group(handler="act_async", concurrency=50)
    group.start(5)
    group.converged()
    job = group.submit(900, nap=0.02)
    group.progressed(100)
    group.runners()[0].kill()
    group.finish(job, named(900))
    group.converged()


def test_links_are_followed_once(group: Group) -> None:
    """What handlers submit becomes part of the job; what it has already, by whomever, is skipped."""
    pages, leaves = named(60, "page"), named(100, "leaf")
    links = {page: [*pages[number : number + 3], *leaves[number : number + 40]] for number, page in enumerate(pages)}
    tasks = [Task(id=page, meta={"links": links[page]}) for page in pages]
    found = run(group, *tasks, members=3, wanted={*pages, *leaves[:99]})
    assert {outcome.attempts for outcome in found.values()} == {1}
    assert sum(line.what == START for line in group.log()) == 159


@pytest.mark.promise(3)
@pytest.mark.quick
def test_links_are_followed_once_though_runners_die(group: Group) -> None:
    """Who takes over knows what the job has: links met again are skipped by whoever has the shard."""
    group.start(5)
    group.converged()
    pages, leaves = named(240, "page"), named(60, "leaf")
    job = group.cluster.submit([Task(id=page, meta={"nap": 0.05, "links": leaves}) for page in pages])
    group.progressed(100)
    for victim in group.runners()[:2]:
        victim.kill()
    group.finish(job, {*pages, *leaves})


def test_a_task_that_submits_itself(group: Group) -> None:
    """A page that links to itself is no loop."""
    assert run(group, Task(id="me", meta={"links": ["me", "you", "you"]}), wanted={"me", "you"}).keys() == {"me", "you"}


def test_a_handler_that_submits_thousands(group: Group) -> None:
    """What does not fit into the commit of its outcome is added in commits before it."""
    found = run(group, Task(id="many", meta={"spawn": 5000}), members=3, wanted={"many", *named_below("many", 5000)})
    assert len(found) == 5001


@pytest.mark.promise(3)
def test_handlers_that_submit_thousands_while_runners_die(group: Group) -> None:
    """If one dies in the middle of that, the task runs again and what it had added is not added twice."""
    group.start(5)
    group.converged()
    parents = named(12, "many")
    job = group.cluster.submit([Task(id=name, meta={"spawn": 2000}) for name in parents])
    group.eventually(lambda: job.progress().total > 3000)
    for victim in group.runners()[:2]:
        victim.kill()
    group.finish(job, {*parents, *(name for parent in parents for name in named_below(parent, 2000))})


def named_below(parent: str, count: int) -> list[str]:
    """The ids of the tasks that *parent* spawns."""
    return [f"{parent}/{number}" for number in range(count)]


def test_nothing_is_submitted_by_a_handler_that_raises(group: Group) -> None:
    """Both its outcome and its tasks count, or neither."""
    found = run(group, Task(id="bad", meta={"links": ["other"], "raise": "after all"}))
    assert found.keys() == {"bad"}


def test_links_of_any_text(group: Group) -> None:
    """Whatever a link is made of, it is a task like any other: pages are not always what they say they are."""
    odd = ["\udcff", "ü", " ", "a/b?c=d#e", "\n\0", "x" * 512]
    found = run(group, Task(id="page", meta={"links": odd}), wanted={"page", *odd})
    assert {outcome.state for outcome in found.values()} == {State.DONE}


@pytest.mark.parametrize("handler", ["act", "act_async"])
@pytest.mark.parametrize("name", [5, ["a"], {"a": 1}, "x" * 513, None, ""])
def test_links_that_are_no_text(new_group: NewGroup, handler: str, name: object) -> None:
    """A task made wrongly fails the handler that made it, and nothing else."""
    found = run(new_group(handler=handler), Task(id="bad", meta={"links": [name]}), Task(id="good"))
    assert (found["bad"].state, found["good"].state) == (State.FAILED, State.DONE)


def test_retries(new_group: NewGroup) -> None:
    """A task is tried as often as it may be; the last try counts, and the number of starts is recorded."""
    group = new_group(retries={"attempts": 3, "delay": 0.1})
    tasks = [Task(id=f"fails-{fails}", meta={"fails": fails}) for fails in range(5)]
    found = run(group, *tasks)
    assert {name: (each.state, each.attempts) for name, each in found.items()} == {
        "fails-0": (State.DONE, 1),
        "fails-1": (State.DONE, 2),
        "fails-2": (State.DONE, 3),
        "fails-3": (State.FAILED, 3),
        "fails-4": (State.FAILED, 3),
    }
    assert found["fails-4"].error == "ValueError: attempt 3"
    first, second, third = [line.at for line in group.log() if line.what == START and line.task == "fails-4"]
    assert (second - first >= 0.1, third - second >= 0.2) == (True, True)


def test_retries_across_a_death(new_group: NewGroup) -> None:
    """Starts that a dead Runner made count as starts, not as failures."""
    group = new_group(retries={"attempts": 2, "delay": 0.1}, concurrency=100)
    group.start(5)
    group.converged()
    job = group.submit(90, hold="gate", fails=1)
    group.all_running(90)
    victim = group.runners()[0]
    held = group.running(victim)
    victim.kill()
    group.open("gate")
    outcomes = group.finish(job, named(90))
    assert {outcome.state for outcome in outcomes} == {State.DONE}
    # The second start of those that were held succeeds, though the first has not failed.
    assert {outcome.attempts for outcome in outcomes if outcome.task_id in held} == {2}
    assert {outcome.attempts for outcome in outcomes if outcome.task_id not in held} == {2}
