"""The store goes away and comes back: nothing is lost meanwhile, nothing crashes, and the group goes on."""

import pytest
from cluster.group import Group, NewGroup, named
from cluster.handlers import END, START
from cluster.stores import Store

from smoothcluster.clock import SYSTEM_CLOCK

TASKS = 90
LEASE = 1.0


@pytest.fixture
def five(new_group: NewGroup, own_store: Store) -> Group:
    """Three Runners and two Backup Runners with short leases, in a store that may be stopped."""
    group = new_group(own_store.url, lease_ttl=LEASE)
    group.start(5)
    group.converged()
    return group


def passes(group: Group, seconds: float, since: float) -> None:
    """Wait until it is *seconds* later than *since*: for leases there is nothing else to wait for."""
    group.eventually(lambda: SYSTEM_CLOCK.monotonic() > since + seconds)


@pytest.mark.promise(4, 9)
def test_killed_for_longer_than_the_leases(five: Group, own_store: Store) -> None:
    """Running tasks end meanwhile, none starts once its member's lease may be over, and then all is finished."""
    job = five.submit(TASKS, hold="gate")
    five.busy(*five.runners(), tasks=8)
    running = {task for member in five.runners() for task in five.running(member)}
    own_store.kill()
    since = SYSTEM_CLOCK.monotonic()
    passes(five, LEASE, since)
    five.open("gate")
    five.eventually(lambda: running <= {line.task for line in five.log() if line.what == END})
    passes(five, 3 * LEASE, since)
    back = SYSTEM_CLOCK.monotonic()
    own_store.start()
    five.finish(job, named(TASKS))
    assert not [line for line in five.log() if line.what == START and since + LEASE < line.at < back]
    assert len(five.living) == 5
    five.converged()


@pytest.mark.promise(3, 9)
@pytest.mark.quick
def test_killed_amid_quick_tasks(five: Group, own_store: Store) -> None:
    """Whatever was on its way to the store when it died is recorded once, however often it has to be sent."""
    job = five.submit(3000, nap=0.004)
    for ended in (500, 1200):
        five.progressed(ended)
        own_store.kill()
        own_store.start()
    five.finish(job, named(3000))
    assert len(five.living) == 5
    five.converged()


@pytest.mark.promise(9)
def test_silent_for_longer_than_the_leases(five: Group, own_store: Store) -> None:
    """A store that takes connections and answers nothing is no different from one that is gone."""
    job = five.submit(1000, nap=0.01)
    five.progressed(200)
    own_store.pause()
    since = SYSTEM_CLOCK.monotonic()
    passes(five, 3 * LEASE, since)
    own_store.resume()
    five.finish(job, named(1000))
    assert len(five.living) == 5
    five.converged()


@pytest.mark.promise(7, 9)
def test_a_runner_killed_while_the_store_is_away(five: Group, own_store: Store) -> None:
    """Its death is not forgotten by the time that something can be done about it."""
    job = five.submit(300, nap=0.05)
    victim = five.runners()[0]
    five.busy(*five.runners())
    own_store.kill()
    victim.kill()
    victim.status()
    own_store.start()
    five.finish(job, named(300))
    five.converged()
    assert victim not in five.living


@pytest.mark.promise(9)
def test_a_submit_while_the_store_is_away(five: Group, own_store: Store) -> None:
    """A client waits for the store; what it submits is there once."""
    own_store.kill()
    own_store.start()
    five.finish(five.submit(500), named(500))
