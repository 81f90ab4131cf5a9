"""What tests are made of: faults that do as they are told, a clock that stands still, reads that lag."""

import subprocess
import sys
import threading

import pytest

import smoothcluster.testing
from smoothcluster.backend import Committed, Create, Exists, Refused, Update
from smoothcluster.errors import CommitTooLargeError, LeaseLostError, OutcomeUnknownError, UnavailableError
from smoothcluster.memory import MemoryBackend, MemoryStore
from smoothcluster.testing import Faulty, HeldClock, Lagging, eventually
from smoothcluster.testing.faults import Act


@pytest.fixture
def store() -> MemoryStore:
    """A store whose time stands still."""
    return MemoryStore(clock=HeldClock())


@pytest.fixture
def faulty(store: MemoryStore) -> Faulty:
    """A client of it that fails when told to."""
    return Faulty(MemoryBackend(store))


def test_a_dropped_answer_is_to_something_done(store: MemoryStore, faulty: Faulty) -> None:
    """The next act of its kind happens and raises OutcomeUnknownError; those before and after are answered."""
    faulty.drop_answer()
    lease = faulty.lease(5)
    with pytest.raises(OutcomeUnknownError):
        faulty.commit([], [Create("a", b"", lease)])
    assert store.tree.entries["a"].lease == lease.id
    assert isinstance(faulty.commit([], [Create("b", b"")]), Committed)


def test_what_is_refused_is_not_done(store: MemoryStore, faulty: Faulty) -> None:
    """As many acts as told raise UnavailableError and leave no trace."""
    faulty.refuse(times=2)
    for _ in range(2):
        with pytest.raises(UnavailableError):
            faulty.commit([], [Create("a", b"")])
    assert not store.tree.entries
    assert isinstance(faulty.commit([], [Create("a", b"")]), Committed)


def test_what_is_held_is_done_when_delivered(store: MemoryStore, faulty: Faulty) -> None:
    """Acts held back raise OutcomeUnknownError, and come to whatever they come to later, in order."""
    lease = faulty.lease(5)
    for _ in range(3):
        faulty.hold()
    with pytest.raises(OutcomeUnknownError):
        faulty.commit([], [Create("a", b"1")])
    with pytest.raises(OutcomeUnknownError):
        faulty.commit([], [Create("a", b"2")])
    with pytest.raises(OutcomeUnknownError):
        faulty.commit([], [Create("b", b"", lease)])
    assert not store.tree.entries
    lease.revoke()
    outcomes = faulty.deliver()
    assert [type(outcome) for outcome in outcomes] == [Committed, Refused, LeaseLostError]
    assert store.tree.entries["a"].value == b"1"
    assert faulty.deliver() == []


@pytest.mark.parametrize("act", ["read", "commit", "lease", "renew", "revoke"])
def test_a_fault_befalls_its_own_act(faulty: Faulty, act: Act) -> None:
    """Each kind of act has its faults, which leave the others alone."""
    lease = faulty.lease(5)
    calls = {
        "read": lambda: faulty.get("a"),
        "commit": lambda: faulty.commit([Exists("no")], [Create("a", b"")]),
        "lease": lambda: faulty.lease(5),
        "renew": lease.renew,
        "revoke": lease.revoke,
    }
    faulty.refuse(act)
    for name, call in calls.items():
        if name != act:
            call()
    with pytest.raises(UnavailableError, match=act):
        calls[act]()
    calls[act]()


def test_cut_off_nothing_gets_through(store: MemoryStore, faulty: Faulty) -> None:
    """While cut every act raises the error told, and nothing is done; too large a commit is known to be."""
    lease = faulty.lease(5)
    for error in (UnavailableError, OutcomeUnknownError):
        faulty.cut(error)
        for call in (
            lambda: faulty.get("a"),
            lambda: faulty.keys("a"),
            lambda: faulty.list("a"),
            faulty.sync,
            lambda: faulty.commit([], [Create("a", b"")]),
            lambda: faulty.lease(5),
            lease.renew,
            lease.revoke,
        ):
            with pytest.raises(error):
                call()
        with pytest.raises(CommitTooLargeError):
            faulty.commit([], [Create("a", b"x" * 10_000_000)])
    faulty.mend()
    assert lease.renew()
    assert not store.tree.entries


def test_a_watch_is_silent_while_cut_off(store: MemoryStore, faulty: Faulty) -> None:
    """Nothing wakes it until the connection is mended; then it wakes at once, unless it was closed."""
    woken: list[str] = []
    faulty.watch("a", lambda: woken.append("open"))
    faulty.watch("a", lambda: woken.append("closed")).close()
    faulty.cut()
    MemoryBackend(store).commit([], [Create("a", b"")])
    assert woken == []
    faulty.mend()
    assert woken == ["open"]
    MemoryBackend(store).commit([], [Update("a", b"")])
    assert woken == ["open", "open"]


def test_a_held_clock_wakes_whose_time_has_come() -> None:
    """A wait lasts until its timeout has passed on that clock, or its signal is set; setting wakes at once."""
    clock = HeldClock()
    answers: dict[str, bool] = {}

    def wait(name: str, timeout: float | None) -> None:
        answers[name] = signals[name].wait(timeout)

    signals = {name: clock.signal() for name in ("short", "long", "set")}
    times = {"short": 1.0, "long": 2.0, "set": None}
    for name, timeout in times.items():
        threading.Thread(target=wait, args=(name, timeout), daemon=True).start()
    eventually(lambda: clock.waiting == 3)
    clock.advance(1.5)
    eventually(lambda: answers == {"short": False})
    signals["set"].set()
    eventually(lambda: answers == {"short": False, "set": True})
    clock.advance(0.5)
    eventually(lambda: answers == {"short": False, "set": True, "long": False})
    assert signals["set"].is_set()
    signals["set"].clear()
    assert not signals["set"].wait(0)


def test_a_held_clock_sleeps_no_time_at_once() -> None:
    """Both of its clocks move together, by `advance` alone."""
    clock = HeldClock(start=5.0)
    clock.sleep(0)
    wall = clock.wall()
    clock.advance(2)
    assert (clock.monotonic(), clock.wall() - wall) == (7.0, 2.0)


def test_waiting_in_vain_is_an_assertion_error() -> None:
    """`eventually` returns what it waited for, and says what it last saw if that does not come."""
    assert eventually(lambda: "seen") == "seen"
    with pytest.raises(AssertionError, match=r"still 0 after 0\.01 seconds"):
        eventually(lambda: 0, within=0.01)


def test_a_lagging_client_sees_history_late_and_in_order(store: MemoryStore) -> None:
    """It sees others' steps one by one as told, its watches wake with them, and its own commits show all before."""
    store_client = MemoryBackend(store)
    store_client.commit([], [Create("a/old", b"")])
    late = Lagging(store)
    woken: list[list[str]] = []
    late.watch("a", lambda: woken.append(late.keys("a")))
    for name in ("1", "2", "3"):
        store_client.commit([], [Create(f"a/{name}", b"")])
    assert (late.behind, late.keys("a"), woken) == (3, ["a/old"], [])
    late.catch_up(1)
    assert woken == [["a/1", "a/old"]]
    assert late.list("a") == store_client.get_many(["a/1", "a/old"])
    assert late.get("a/2") is None
    late.commit([], [Create("b", b"")])
    assert late.keys("a") == store_client.keys("a")
    assert len(woken) == 3
    late.catch_up(5)
    assert late.url == store_client.url
    late.close()
    with pytest.raises(UnavailableError):
        late.keys("a")


def test_a_lagging_client_syncs_on_demand(store: MemoryStore) -> None:
    """`sync` shows all that happened, leases that are due included."""
    assert isinstance(store.clock, HeldClock)
    late = Lagging(store)
    other = MemoryBackend(store)
    other.commit([], [Create("a", b"", other.lease(5))])
    late.sync()
    assert late.get("a") is not None
    store.clock.advance(5)
    assert late.get("a") is not None
    late.sync()
    assert late.get("a") is None


def test_what_is_asked_for_is_loaded() -> None:
    """Clock and faults are usable without pytest and Hypothesis; the rest is there when asked for."""
    for name in smoothcluster.testing.__all__:
        assert getattr(smoothcluster.testing, name) is not None
    with pytest.raises(AttributeError, match="Nonsense"):
        _ = smoothcluster.testing.Nonsense  # type: ignore[attr-defined]
    script = (
        "import sys; sys.modules['pytest'] = sys.modules['hypothesis'] = None;"
        "from smoothcluster.testing import Faulty, HeldClock, Lagging, eventually"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
