"""A store that is older than before: emptied, or restored from a backup. Every member says so once, and goes on."""

import threading
from collections.abc import Callable
from contextlib import ExitStack, closing
from typing import TypeVar

import pytest
from cluster.group import Group, NewGroup, named
from cluster.stores import Kind, Store

from smoothcluster import connect
from smoothcluster.backend import CoordinationBackend, Create, HasHistory, Refused, Update
from smoothcluster.clock import SYSTEM_CLOCK
from smoothcluster.errors import BackendError
from smoothcluster.testing import eventually

TOLD = "may be older than before"
AWAY = "the store is unavailable"

LEASE = 1.0

Answer = TypeVar("Answer")


@pytest.fixture
def three(new_group: NewGroup, own_store: Store) -> Group:
    """Two Runners and a Backup Runner with short leases, in a store that may be set back."""
    group = new_group(own_store.url, runner=2, backup=1, lease_ttl=LEASE)
    group.start(3)
    group.converged()
    return group


def told(group: Group) -> list[int]:
    """How often each member has told of an older store."""
    return [member.errors.count(TOLD) for member in group.members]


def test_a_store_that_was_emptied(three: Group, own_store: Store) -> None:
    """After an outage all is gone: the same members form the group anew, and a long outage fills no log."""
    three.finish(three.submit(40, "before"), named(40, "before"))
    own_store.kill()
    three.eventually(lambda: all(AWAY in member.errors for member in three.members))
    since = SYSTEM_CLOCK.monotonic()
    three.eventually(lambda: SYSTEM_CLOCK.monotonic() > since + 2 * LEASE)
    own_store.empty()
    three.eventually(lambda: told(three) == [1, 1, 1])
    three.eventually(lambda: not three.cluster.absent())
    three.converged()
    three.finish(three.submit(100, "after"), named(100, "after"))
    assert told(three) == [1, 1, 1]
    three.eventually(lambda: len(three.events("doubt")) == 3)
    assert max(member.errors.count("\n") for member in three.members) <= 12
    assert max(member.errors.count(AWAY) for member in three.members) <= 3
    assert len(three.living) == 3


def test_a_store_that_was_set_back(three: Group, own_store: Store, kind: Kind) -> None:
    """What was kept stays, what was lost is done once it is submitted again, and the watches wake for what is new."""
    if kind.scheme == "memory":
        pytest.skip("a store in memory has no backup")
    kept = three.submit(40, "kept")
    three.finish(kept, named(40, "kept"))
    own_store.save()
    for number in range(2):  # So many commits that the new ones do not make up for them.
        three.finish(three.submit(150, f"lost{number}"), named(150, f"lost{number}"))
    own_store.set_back()
    three.eventually(lambda: told(three) == [1, 1, 1])
    three.finish(three.submit(20, "after"), named(20, "after"))
    three.finish(three.submit(150, "lost0"), named(150, "lost0"), counted=False)
    three.finish(kept, named(40, "kept"), counted=False)
    three.converged()
    assert told(three) == [1, 1, 1]
    three.eventually(lambda: any(event["shards"] for event in three.events("doubt")))
    assert len(three.living) == 3


def answered(call: Callable[[], Answer]) -> Answer:
    """What the store answers once it does, and the client has found that out."""
    answers: list[Answer] = []

    def try_once() -> bool:
        try:
            answers.append(call())
        except BackendError:
            return False
        return True

    eventually(try_once, 60.0)
    return answers[0]


def history(client: CoordinationBackend) -> str:
    """The store's history by *client*."""
    assert isinstance(client, HasHistory)
    return answered(client.history)


def update(client: CoordinationBackend, key: str) -> str:
    """Change *key*, and return its version."""
    answered(lambda: client.commit([], [Update(key, b"new")]))
    entry = answered(lambda: client.get(key))
    assert entry is not None
    return entry.version


def changes(client: CoordinationBackend, key: str, count: int) -> str:
    """Make *key*, change it so often, and return its version."""
    answered(lambda: client.commit([], [Create(key, b"")]))
    return [update(client, key) for _ in range(count)][-1]


def test_versions_and_watches_from_before(own_store: Store, kind: Kind) -> None:
    """In a store that was emptied the same numbers come again: a version from before is refused, and watches wake."""
    with ExitStack() as stack:
        client, other = (stack.enter_context(closing(connect(own_store.url).for_group("g"))) for _ in range(2))
        version, told = changes(client, "g/a", 9), history(client)
        woken = threading.Event()
        client.watch("g/a", woken.set)
        own_store.empty()
        eventually(lambda: history(client) != told, 60.0)
        told = history(client)
        woken.clear()
        again = changes(other, "g/a", 3)
        assert woken.wait(60.0)
        if kind.scheme not in ("memory", "redis"):  # These never repeat a number.
            for _ in range(9):
                again = again if again == version else update(other, "g/a")
        assert isinstance(answered(lambda: client.commit([], [Update("g/a", b"old", version)])), Refused)
        entry = answered(lambda: client.get("g/a"))
        assert entry is not None
        assert entry.value == b"new"
        assert not isinstance(client.commit([], [Update("g/a", b"", entry.version)]), Refused)
        assert history(client) == told, "it is told once"
