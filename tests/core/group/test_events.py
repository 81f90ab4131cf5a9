"""Events: a bounded ring for each member that goes on after a restart, whatever lies in it."""

import pytest
from core_kit import KEYS, put, store_of

from smoothcluster.backend import Delete
from smoothcluster.errors import OutcomeUnknownError, UnavailableError
from smoothcluster.group.events import EVENTS_KEPT_PER_MEMBER, EventLog, read_events
from smoothcluster.memory import MemoryBackend
from smoothcluster.testing import Faulty


@pytest.fixture
def backend() -> Faulty:
    """A store over a connection that can fail."""
    return Faulty(MemoryBackend())


def ring(backend: Faulty, member: str = "m") -> EventLog:
    """A member's ring."""
    return EventLog(store_of(backend), member)


def write(log: EventLog, *kinds: str) -> None:
    """Note events and write them."""
    for kind in kinds:
        log.add(kind)
    log.flush()


def kinds(backend: Faulty) -> list[object]:
    """What is in the store, oldest first."""
    return [event["kind"] for event in read_events(store_of(backend))]


def test_events_are_read_in_order(backend: Faulty) -> None:
    """With the time on the writer's wall clock, and who it was."""
    ring(backend).add("a", shards=[1])
    log = ring(backend)
    log.add("a", shards=[1])
    log.flush()
    (event,) = read_events(store_of(backend))
    assert event == {"at": 1_600_001_000.0, "kind": "a", "member": "m", "shards": [1], "n": 0}


def test_an_event_may_be_added_to_until_it_is_written(backend: Faulty) -> None:
    """What is known a moment later goes with it."""
    log = ring(backend)
    log.add("a")["more"] = 1
    log.flush()
    assert read_events(store_of(backend))[0]["more"] == 1


def test_the_ring_wraps(backend: Faulty) -> None:
    """The oldest event makes room."""
    log = ring(backend)
    for start in range(0, EVENTS_KEPT_PER_MEMBER + 3, 10):
        write(log, *(f"e{number}" for number in range(start, min(start + 10, EVENTS_KEPT_PER_MEMBER + 3))))
    assert kinds(backend) == [f"e{number}" for number in range(3, EVENTS_KEPT_PER_MEMBER + 3)]


def test_a_restart_goes_on_behind_what_was_written(backend: Faulty) -> None:
    """The name has one ring, whoever bears it."""
    write(ring(backend), "a", "b")
    write(ring(backend), "c")
    assert kinds(backend) == ["a", "b", "c"]


def test_members_do_not_share_rings(backend: Faulty) -> None:
    """One that tells much does not push out another."""
    write(ring(backend, "m"), "a")
    write(ring(backend, "n"), "b")
    assert sorted(map(str, kinds(backend))) == ["a", "b"]


GARBAGE = [
    b"\xff",
    b"[]",
    b'{"n":"x"}',
    b'{"n":1e999}',
    b'{"n":%d,"kind":"k"}' % 10**400,
    b'{"n":null,"at":{},"kind":"k"}',
]


@pytest.mark.parametrize("value", GARBAGE, ids=lambda value: repr(value[:12]))
def test_garbage_in_the_ring_is_harmless(backend: Faulty, value: bytes) -> None:
    """It is shown as such or as it is, and written over when its turn comes."""
    put(backend, f"{KEYS.events('m')}/0", value)
    put(backend, f"{KEYS.events('m')}/nonsense", value)
    write(ring(backend), "a")
    assert "a" in kinds(backend)


def test_an_answer_that_was_lost_costs_no_event(backend: Faulty) -> None:
    """What was not acknowledged is written again, if need be twice."""
    log = ring(backend)
    log.add("a")
    backend.drop_answer()
    with pytest.raises(OutcomeUnknownError):
        log.flush()
    write(log, "b")
    assert set(kinds(backend)) == {"a", "b"}


def test_what_could_not_be_written_is_written_later(backend: Faulty) -> None:
    """As much as the ring holds: explaining never takes unbounded memory."""
    log = ring(backend)
    backend.cut()
    for number in range(EVENTS_KEPT_PER_MEMBER + 5):
        log.add(f"e{number}")
    with pytest.raises(UnavailableError):
        log.flush()
    backend.mend()
    log.flush()
    assert kinds(backend)[0] == "e5"
    assert len(kinds(backend)) == EVENTS_KEPT_PER_MEMBER


def test_who_tidies_up_does_no_harm(backend: Faulty) -> None:
    """A slot that is not there any more is made anew."""
    log = ring(backend)
    for start in range(0, EVENTS_KEPT_PER_MEMBER, 50):
        write(log, *(f"e{number}" for number in range(start, start + 50)))
    backend.commit([], [Delete(f"{KEYS.events('m')}/0")])
    write(log, "new")
    assert kinds(backend)[-1] == "new"


def test_garbage_is_reported_once_a_key(backend: Faulty) -> None:
    """It is met at every look."""
    log = ring(backend)
    for key in ("x", "x", "y"):
        log.garbage(key, "bad")
    log.flush()
    assert [event["key"] for event in read_events(store_of(backend))] == ["x", "y"]
