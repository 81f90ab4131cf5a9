"""The sqlite backend on real files, shared by real processes: the contract, and what only sqlite does."""

import os
import random
import re
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from pathlib import Path
from typing import final

import pytest
from cluster.group import Group, Member, NewGroup, named
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test  # pyright: ignore[reportUnknownVariableType]
from processes import pause, states
from smoothcluster_sqlite import SqliteBackend, address
from smoothcluster_sqlite.address import check_shared_here
from smoothcluster_sqlite.errors import translate_error
from smoothcluster_sqlite.file import StoreFile
from smoothcluster_sqlite.lock_holder import describe_lock_holder
from smoothcluster_sqlite.transaction import (
    ACT_DONE,
    BOOT_ID,
    CLOCK_STEP_CAP_SECONDS,
    COMMITS_KEPT,
    TRANSACTION_SCRIPT,
    Act,
    Reading,
    run_write,
)
from sqlite_store import SqliteStore, Writer

from smoothcluster.backend import Change, Committed, CoordinationBackend, Create, Delete, Lease, Update
from smoothcluster.clock import SYSTEM_CLOCK
from smoothcluster.errors import (
    AccessDeniedError,
    LeaseLostError,
    OutcomeUnknownError,
    UnavailableError,
    UsageError,
)
from smoothcluster.registry import connect
from smoothcluster.testing import Ability, BackendConformance, Faulty, HeldClock, backend_machine, eventually
from smoothcluster.testing.conformance.kit import Wakes, create, refused


def end_lease(path: Path, lease: Lease) -> None:
    """Have its time be over, and wait until some client has noticed."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE leases SET expires = 0 WHERE id = ?", (lease.id,))
        eventually(lambda: not connection.execute("SELECT 1 FROM leases WHERE id = ?", (lease.id,)).fetchall())


class TestSqlite(BackendConformance):
    """One file for each test, through connections that can be cut."""

    abilities = frozenset({Ability.CUT})

    @pytest.fixture(autouse=True)
    def _file(self, tmp_path: Path) -> None:
        self.path = tmp_path / "cluster.db"

    def connect(self) -> CoordinationBackend:
        """A new client of this test's file."""
        return Faulty(SqliteBackend(self.path))

    def expire(self, lease: Lease) -> None:
        """Take it away before its time."""
        end_lease(self.path, lease)

    def cut(self, backend: CoordinationBackend) -> None:
        """As the wrapper does it."""
        assert isinstance(backend, Faulty)
        backend.cut()

    def mend(self, backend: CoordinationBackend) -> None:
        """As the wrapper does it."""
        assert isinstance(backend, Faulty)
        backend.mend()


@pytest.mark.slow
@pytest.mark.parametrize("expiring", [False, True], ids=["", "expiring"])
def test_random_moves(path: Path, expiring: bool) -> None:
    """Whatever two clients do, the store holds what a dict would, and wakes whom it should."""

    def expire(lease: Lease) -> None:
        end_lease(path, lease)

    machine = backend_machine(lambda: SqliteBackend(path), expire if expiring else None)
    run_state_machine_as_test(
        machine,
        settings=settings(
            deadline=None, max_examples=12, stateful_step_count=25, suppress_health_check=[HealthCheck.too_slow]
        ),
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where this test's file is, or is to be."""
    return tmp_path / "cluster.db"


@pytest.fixture
def open_client(path: Path) -> Iterator[Callable[..., SqliteBackend]]:
    """Makes clients of the test's file, or of another, and closes them."""
    clients: list[SqliteBackend] = []

    def make(other: Path | None = path, **options: object) -> SqliteBackend:
        clients.append(SqliteBackend(other, **options))  # type: ignore[arg-type]
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def backend(open_client: Callable[..., SqliteBackend]) -> SqliteBackend:
    """A client of the test's file that is not patient."""
    return open_client(timeout=0.3)


# The lease clock, turn by turn.


@final
class Turns:
    """Takes turns at moments of a machine's clock that the test makes up."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        connection.executescript(TRANSACTION_SCRIPT)

    def __call__(self, now: float, act: Act = "move", lease: str | None = None, seconds: float | None = None) -> int:
        """The outcome of a turn."""
        return run_write(self._connection, act, Reading(now, now), lease, seconds).outcome

    @property
    def number(self) -> int:
        """Of the last commit."""
        number: int = self._connection.execute("SELECT number FROM clock").fetchone()[0]
        return number

    def lives(self, now: float) -> bool:
        """Whether lease ``a`` is there after a turn."""
        self(now)
        return bool(self._connection.execute("SELECT 1 FROM leases WHERE id = 'a'").fetchall())

    def reboot(self) -> None:
        """The file was last used before the machine started."""
        self._connection.execute("UPDATE clock SET boot = 'another'")


@pytest.fixture
def turn(backend: SqliteBackend, path: Path) -> Iterator[Turns]:
    """Takes turns, from 1000 seconds on."""
    backend.get("none")  # The file is made.
    backend.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        turns = Turns(connection)
        turns(1000.0)
        yield turns


@pytest.mark.parametrize("pause", [CLOCK_STEP_CAP_SECONDS / 10, CLOCK_STEP_CAP_SECONDS / 2, CLOCK_STEP_CAP_SECONDS])
def test_a_lease_lasts_as_long_as_granted(turn: Turns, pause: float) -> None:
    """While somebody looks often enough it ends when its time is over, not earlier."""
    now = 1000.0
    turn(now, "grant", "a", 10.0)
    while turn.lives(now):
        now += pause
    assert 1010.0 <= now <= 1010.0 + 2 * CLOCK_STEP_CAP_SECONDS


def test_the_clock_never_runs_ahead(turn: Turns) -> None:
    """However irregular the turns are, no lease ends before its time has passed on the machine's clock."""
    for seed in range(20):
        chance, now = random.Random(seed), 2000.0 + 1000 * seed
        turn(now)
        turn(now, "grant", "a", 5.0)
        began = now
        while turn.lives(now):
            now += chance.choice((-0.1, 0.0, 0.001, 0.1, CLOCK_STEP_CAP_SECONDS, 3 * CLOCK_STEP_CAP_SECONDS))
        assert now >= began + 5.0 - 0.1


@pytest.mark.parametrize("seconds", [60.0, 86_400.0])
def test_time_in_which_nobody_could_write_hardly_counts(turn: Turns, seconds: float) -> None:
    """A stalled disk, a writer that was paused, a clock that jumps: each costs every lease a cap at most."""
    turn(1000.0, "grant", "a", 3 * CLOCK_STEP_CAP_SECONDS)
    assert turn.lives(1000.0 + seconds)
    assert turn.lives(1000.0 + 2 * seconds)
    assert not turn.lives(1000.0 + 3 * seconds)


def test_a_clock_that_goes_back_is_another_clock(turn: Turns) -> None:
    """Every lease gets its full time again, and then ends if nobody renews it."""
    turn(1000.0, "grant", "a", 1.0)
    assert all(turn.lives(moment) for moment in (1000.2, 1000.4, 1000.6, 1000.8))
    now = began = 3.0
    while turn.lives(now):
        now += CLOCK_STEP_CAP_SECONDS / 2
    assert began + 1.0 <= now <= began + 1.0 + CLOCK_STEP_CAP_SECONDS


def test_a_reading_that_comes_late_changes_nothing(turn: Turns) -> None:
    """Two who read the clock and write in the other order are no reason to give anybody more time, or less."""
    turn(1000.0, "grant", "a", 1.0)
    now = 1000.0
    while turn.lives(now):
        turn(now - 0.05)
        now += CLOCK_STEP_CAP_SECONDS / 2
    assert 1001.0 <= now <= 1001.0 + CLOCK_STEP_CAP_SECONDS


def test_after_a_reboot_leases_get_their_full_time_again(turn: Turns) -> None:
    """Nobody expires by mistake, wherever the new clock stands, and a dead one is noticed."""
    turn(1000.0, "grant", "a", 1.0)
    assert all(turn.lives(moment) for moment in (1000.2, 1000.4, 1000.6, 1000.8))
    turn.reboot()
    now = began = 50_000.0
    while turn.lives(now):
        now += CLOCK_STEP_CAP_SECONDS / 2
    assert began + 1.0 <= now <= began + 1.0 + CLOCK_STEP_CAP_SECONDS


def test_after_a_reboot_no_number_is_given_twice(turn: Turns) -> None:
    """What ends with the machine may be lost without a trace, but a token may have carried its number away."""
    turn(1000.0, "commit")
    before = turn.number
    turn.reboot()
    turn(10.0, "commit")
    assert turn.number > before + 1_000_000


def test_who_renews_lives(turn: Turns) -> None:
    """A lease that is due, and that nobody has ended yet, can be renewed: its holder is there."""
    turn(1000.0, "grant", "a", CLOCK_STEP_CAP_SECONDS)
    assert turn(1000.0 + CLOCK_STEP_CAP_SECONDS, "renew", "a") == ACT_DONE
    assert turn.lives(1000.0 + CLOCK_STEP_CAP_SECONDS)


# The age of renewals, for people.


def test_a_lease_is_silent_by_the_machines_clock(open_client: Callable[..., SqliteBackend]) -> None:
    """Once the time told to the holder has passed, while the lease clock stands still; until the next renewal."""
    clock = HeldClock()
    client = open_client(clock=clock)
    lease = client.lease(5.0)
    create(client, "a", b"", lease)
    clock.advance(4.9)
    assert client.silent_leases([lease.id]) == set()
    clock.advance(0.2)
    assert client.silent_leases([lease.id]) == {lease.id}
    assert client.get("a") is not None
    assert lease.renew() is True
    assert client.silent_leases([lease.id]) == set()


def test_a_lease_renewed_before_the_machine_started_is_silent(backend: SqliteBackend, path: Path) -> None:
    """Its holder has ended with the earlier boot, whatever the clock of this boot shows."""
    lease = backend.lease(5.0)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE leases SET granted = replace(granted, ?, 'another')", (BOOT_ID,))
    assert backend.silent_leases([lease.id]) == {lease.id}
    assert lease.renew() is True
    assert backend.silent_leases([lease.id]) == set()


def test_older_versions_share_the_file(open_client: Callable[..., SqliteBackend], path: Path) -> None:
    """They find the granted seconds where a renewal is recorded; a lease without a recorded renewal is not silent."""
    clock = HeldClock()
    client = open_client(clock=clock)
    lease = client.lease(5.0)
    with closing(sqlite3.connect(path, isolation_level=None)) as older:
        older.execute("UPDATE leases SET expires = 0")
        older.execute("UPDATE leases SET expires = granted + (SELECT time FROM clock)")
        assert older.execute("SELECT expires - time FROM leases, clock").fetchone() == (5.5,)
        older.execute("UPDATE leases SET granted = 5.5")
    clock.advance(60.0)
    assert client.silent_leases([lease.id]) == set()
    assert lease.renew() is True
    clock.advance(5.0)
    assert client.silent_leases([lease.id]) == {lease.id}


# The machine's and other processes' misfortunes.


@pytest.mark.slow
def test_a_writer_paused_for_longer_than_the_leases(
    backend: SqliteBackend, open_client: Callable[..., SqliteBackend], path: Path
) -> None:
    """Nobody can write meanwhile, everybody can read; then nobody has expired, and who does not renew does."""
    lease, dead = backend.lease(1.0), backend.lease(1.0)
    create(backend, "living", b"", lease)
    create(backend, "dead", b"", dead)
    patient = open_client(timeout=30.0)
    with Writer(path) as other:
        other.pause()
        since = SYSTEM_CLOCK.monotonic()
        while SYSTEM_CLOCK.monotonic() < since + 4.0:
            with pytest.raises(UnavailableError, match=rf"process {other.pid} is stopped .*kill -CONT {other.pid}"):
                lease.renew()
            assert len(patient.get_many(["living", "dead"])) == 2
        assert backend.get("living") is not None
        other.resume()
    create(patient, "first")  # Not by a renewal: that would be of use though it comes late.
    assert patient.get("living") is not None
    assert lease.renew() is True

    def only_one_lives() -> bool:
        assert lease.renew() is True
        return backend.get("dead") is None

    eventually(only_one_lives)
    assert backend.get("living") is not None
    assert dead.renew() is False


@pytest.mark.parametrize(
    "locks",
    [
        "",
        "1: POSIX  ADVISORY  WRITE {pid} fe:00:{number}0 120 120",  # another file
        "1: POSIX  ADVISORY  READ {pid} fe:00:{number} 120 120",
        "1: POSIX  ADVISORY  WRITE {pid} fe:00:{number} 123 123",  # another lock
        "1: FLOCK  ADVISORY  WRITE {pid} fe:00:{number} 0 EOF",
        "1: POSIX  ADVISORY  WRITE 99999999 fe:00:{number} 120 120",  # gone by now
        "something else altogether",
    ],
)
def test_who_is_writing_may_not_be_told(backend: SqliteBackend, path: Path, tmp_path: Path, locks: str) -> None:
    """Then the words are general, and nobody is accused."""
    backend.get("none")
    number = path.with_name("cluster.db-shm").stat().st_ino
    told = tmp_path / "locks"
    told.write_text(locks.format(pid=os.getpid(), number=number) + "\n")
    assert describe_lock_holder(str(path), told).startswith("another process is paused")
    told.write_text(f"7: POSIX  ADVISORY  WRITE {os.getpid()} fe:00:{number} 0 EOF\n")
    assert describe_lock_holder(str(path), told) == f"process {os.getpid()} is still writing"


@pytest.mark.slow
def test_a_client_that_comes_while_nobody_can_write_sees_what_there_is(
    open_client: Callable[..., SqliteBackend], path: Path
) -> None:
    """It reads, its watches wake, and what it tries to write waits no longer for what it does by itself."""
    create(open_client(), "a")
    with Writer(path):
        client = open_client(timeout=1.0)
        wakes = Wakes()
        client.watch("a", wakes)
        wakes.since(0)
        for _ in range(3):
            with pytest.raises(UnavailableError, match="is still writing"):
                client.lease(1.0)


def test_a_writer_killed_in_the_middle_harms_nobody(backend: SqliteBackend, path: Path) -> None:
    """What it had begun is undone, and others write at once."""
    lease = backend.lease(1.0)
    version = create(backend, "a", b"", lease)
    with Writer(path) as other:
        other.kill()
    since = SYSTEM_CLOCK.monotonic()
    outcome = backend.commit([], [Update("a", b"new", version)])
    assert isinstance(outcome, Committed)
    assert int(outcome.versions["a"]) == int(version) + 1
    assert SYSTEM_CLOCK.monotonic() - since < 0.3
    assert lease.renew() is True


_COMMITTER = """
import sys
from smoothcluster_sqlite import SqliteBackend
from smoothcluster.backend import Update
backend = SqliteBackend(sys.argv[1])
while True:
    a = backend.get("a")
    number = str(int(a.value) + 1).encode()
    backend.commit([], [Update("a", number, a.version), Update("b", number)])
    print(int(number), flush=True)
"""


@pytest.mark.promise(3)
def test_whoever_is_killed_while_committing_leaves_whole_commits(backend: SqliteBackend, path: Path) -> None:
    """At whatever moment SIGKILL comes: all of a commit or nothing, and everything that was acknowledged."""
    backend.commit([], [Create("a", b"0"), Create("b", b"0")])
    for lines in range(5, 13):
        process = subprocess.Popen([sys.executable, "-c", _COMMITTER, str(path)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        told = [process.stdout.readline() for _ in range(lines)]
        process.kill()
        told += process.communicate()[0].splitlines()
        a, b = backend.get_many(["a", "b"])
        assert a is not None
        assert b is not None
        assert a.value == b.value
        assert int(a.value) >= max(int(line) for line in told if line.strip())


@pytest.mark.promise(8)
def test_a_clock_that_jumps_expires_nobody(path: Path, open_client: Callable[..., SqliteBackend]) -> None:
    """Hours forward, as if the machine's sleep had counted, or back: the lease is there, and can be renewed."""
    clock = HeldClock()
    client = open_client(clock=clock)
    lease = client.lease(5.0)
    create(client, "a", b"", lease)
    for jump in (7200.0, 7200.0, -9000.0, 7200.0):
        clock.advance(jump)
        create(client, f"{jump}{clock.monotonic()}")
        assert client.get("a") is not None
    assert lease.renew() is True


def test_no_call_waits_for_longer_than_the_timeout(backend: SqliteBackend, path: Path) -> None:
    """Everything that writes says in time that it was not done."""
    lease = backend.lease(5.0)
    with Writer(path) as other:
        for act in (
            lambda: backend.commit([], [Create("a", b"")]),
            lambda: backend.lease(5.0),
            lease.renew,
            lease.revoke,
        ):
            since = SYSTEM_CLOCK.monotonic()
            with pytest.raises(UnavailableError, match=f"process {other.pid} is still writing"):
                act()
            assert 0.3 <= SYSTEM_CLOCK.monotonic() - since < 2.0
    assert backend.get("a") is None


def test_who_has_fallen_behind_is_woken(backend: SqliteBackend, path: Path) -> None:
    """After more commits than are kept for watchers, everybody looks for himself."""
    wakes, looked = Wakes(), Wakes()
    backend.watch("a", wakes)
    backend.watch("b", looked)
    create(backend, "b")
    looked.since(0)
    before = wakes.count
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE clock SET number = number + ?", (COMMITS_KEPT + 1,))
    wakes.since(before)


def test_what_is_kept_for_watchers_is_bounded(backend: SqliteBackend, path: Path) -> None:
    """The list of changed keys does not grow for ever."""
    version = create(backend, "a")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE clock SET number = number + ?", (COMMITS_KEPT,))
    backend.commit([], [Update("a", b"", version)])
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT key FROM changes").fetchall() == [("a",)]


def test_names_are_found_among_names_that_begin_alike(backend: SqliteBackend) -> None:
    """No directory hides one beside it, whatever characters come before and after the slash."""
    names = ["x", "x-b", "x.c", "x/y", "x/y/z", "x0", "x=", "xx", "-", "z"]
    for name in names:
        create(backend, f"d/{name}/key")
    assert backend.keys("d") == sorted({f"d/{name.partition('/')[0]}" for name in names})


# The file.


def test_settings_that_other_stores_have_are_not_taken_for_a_name() -> None:
    """Whoever writes them expects something to come of it, and that is no file with an odd name."""
    with pytest.raises(UsageError, match="takes no options, such as"):
        connect("sqlite:///file.db?namespace=docs")


@pytest.mark.parametrize("url", ["sqlite://host/file.db", "sqlite:///", "sqlite://file.db"])
def test_a_url_without_a_file_is_refused(url: str) -> None:
    """The message shows how it is to be written."""
    with pytest.raises(UsageError, match=r"sqlite:///relative\.db"):
        connect(url)


def test_urls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three slashes begin a path in the current folder, four an absolute one; it stays where it was meant."""
    monkeypatch.chdir(tmp_path)
    relative, absolute = connect("sqlite:///a b?.db"), connect(f"sqlite:///{tmp_path}/a b?.db")
    monkeypatch.chdir("/")
    with closing(relative), closing(absolute):
        create(relative, "a")
        assert absolute.get("a") is not None
        assert relative.url == absolute.url == f"sqlite:///{tmp_path}/a b?.db"
        assert connect(relative.url).url == relative.url


@pytest.mark.parametrize("umask", [0o777, 0])
def test_files_of_a_process_with_any_umask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, umask: int) -> None:
    """Their owner can use them, and nobody else."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home" / "state"))
    before = os.umask(umask)
    try:
        with closing(connect("sqlite://")) as client:
            create(client, "a")
            folder = tmp_path / "home" / "state" / "smoothcluster"
            assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(each.stat().st_mode) for each in (folder.parent, folder.parents[1])} == {0o700}


def test_each_user_has_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a path it is the user's own, in a folder for him alone, made when it is first used."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with closing(connect("sqlite://")) as client:
        assert client.url == f"sqlite:///{tmp_path}/state/smoothcluster/cluster.db"
        assert not (tmp_path / "state").exists()
        create(client, "a")
        folder = tmp_path / "state" / "smoothcluster"
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}
    monkeypatch.setenv("XDG_STATE_HOME", "not/absolute")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert connect("sqlite://").url == f"sqlite:///{tmp_path}/.local/state/smoothcluster/cluster.db"


@pytest.mark.parametrize("options", [{"timeout": 0}, {"path": ":memory:"}], ids=str)
def test_options_that_make_no_sense_are_refused(options: dict[str, str]) -> None:
    """The message says what is wrong."""
    with pytest.raises(UsageError, match=r"positive|memory://"):
        SqliteBackend(**options)  # type: ignore[arg-type]


MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:30 / /home rw,relatime shared:2 - nfs4 server:/home rw
31 30 8:2 / /home/me/my\\040disk rw - ext4 /dev/sdb1 rw
32 22 0:31 / /mnt rw - ext4 /dev/sdc1 rw
33 32 0:32 / /mnt rw - fuse.sshfs there:/ rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/home/me/x.db", "nfs4"), ("/home/me/my disk/x.db", None), ("/homes/x.db", None), ("/mnt/x.db", "fuse.sshfs")],
)
def test_network_file_systems_are_refused(path: str, kind: str | None, tmp_path: Path) -> None:
    """Where locks do not work no store is made: the message names the mount, and what to do."""
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS)
    if kind is None:
        check_shared_here(Path(path), mounts)
    else:
        with pytest.raises(UsageError, match=f"{kind}, mounted at .*sqlite:////"):
            check_shared_here(Path(path), mounts)


@pytest.mark.parametrize("is_there", [False, True], ids=["new", "there"])
def test_whoever_comes_to_a_network_file_system_is_refused(
    path: Path, open_client: Callable[..., SqliteBackend], monkeypatch: pytest.MonkeyPatch, is_there: bool
) -> None:
    """Before anything is made or opened there: here the test's own disk passes for one."""
    if is_there:
        create(open_client(), "a")
    monkeypatch.setattr(address, "_LOCKLESS_FILE_SYSTEMS", re.compile(".*"))
    client = open_client()
    for act in (lambda: client.get("a"), lambda: client.lease(5.0)):
        with pytest.raises(UsageError, match="is on a network file system"):
            act()
    assert path.exists() == is_there


def _text(path: Path) -> None:
    path.write_text("not a database, but long enough to be taken for one at first sight\n" * 100)


def _foreign(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE theirs (x)")


def _newer(path: Path) -> None:
    with closing(SqliteBackend(path)) as client:
        client.get("a")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA user_version = 99")


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (_text, "is not an sqlite database"),
        (_foreign, "is a database of another program"),
        (_newer, "is of version 99"),
        (Path.mkdir, "is a folder"),
    ],
)
def test_what_is_no_store_is_refused(
    make: Callable[[Path], None], complaint: str, path: Path, backend: SqliteBackend
) -> None:
    """A file of somebody else's is left as it is, and the message says what it is."""
    make(path)
    before = None if path.is_dir() else path.read_bytes()
    for act in (lambda: backend.get("a"), lambda: backend.lease(5.0)):
        with pytest.raises(UsageError, match=complaint):
            act()
    assert before is None or path.read_bytes() == before


def test_a_file_that_is_gone_is_missed_until_it_is_back(open_client: Callable[..., SqliteBackend]) -> None:
    """Moved or deleted: every call says so, nothing is made in its place, and once back it is known again."""
    store = SqliteStore()
    client = open_client(store.path)
    lease = client.lease(1.0)
    create(client, "a", b"", lease)
    wakes = Wakes()
    client.watch("a", wakes)
    store.kill()
    for act in (lambda: client.get("a"), lambda: client.commit([], [Create("b", b"")]), lease.renew):
        with pytest.raises(UnavailableError, match="is gone"):
            act()
    assert not store.path.exists()
    store.start()
    assert lease.renew() is True
    before = wakes.count
    client.commit([], [Update("a", b"new")])
    wakes.since(before)
    client.close()
    store.stop()


def test_a_file_that_goes_while_it_is_opened_is_missed(
    path: Path, backend: SqliteBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its log, too: nothing is acknowledged that could not be made durable, and once back it is as ever."""
    backend.get("none")
    log, away = path.with_name("cluster.db-wal"), path.with_name("away")
    opened = StoreFile.open

    def opened_as_it_goes(file: StoreFile) -> object:
        connection = opened(file)
        log.rename(away)
        return connection

    monkeypatch.setattr(StoreFile, "open", opened_as_it_goes)
    with pytest.raises(UnavailableError, match="the write-ahead log is gone"):
        backend.commit([], [Create("a", b"")])
    monkeypatch.undo()
    away.rename(log)
    create(backend, "a")
    assert backend.get("a") is not None


def test_only_what_outlives_the_machine_waits_for_the_disk(
    backend: SqliteBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What hangs on leases ends with the machine, as do all who saw it; whatever else a commit changes is safe."""
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", synced.append)

    def waits(*changes: Change) -> bool:
        synced.clear()
        backend.commit([], changes)
        return bool(synced)

    lease = backend.lease(60.0)
    assert not waits(Create("leased", b"", lease))
    assert not waits(Update("leased", b"x"))
    assert waits(Create("plain", b""))
    assert waits(Update("plain", b"x"), Update("leased", b"y"))
    assert waits(Create("other", b""), Create("leased2", b"", lease))
    assert waits(Delete("other"), Delete("leased2"))
    assert not waits(Delete("leased"))
    assert waits(Delete("plain"))
    assert not waits(Delete("plain"))


def test_a_file_that_was_replaced_is_not_taken_for_the_old_one(
    path: Path, backend: SqliteBackend, open_client: Callable[..., SqliteBackend]
) -> None:
    """Another store, or an older copy, at the same path is read; versions of the former count no more."""
    copy = path.with_name("copy")
    create(backend, "a")
    with closing(sqlite3.connect(path)) as connection, closing(sqlite3.connect(copy)) as other:
        connection.backup(other)
    backend.commit([], [Update("a", b"later")])
    later, told = backend.get("a"), backend.history()
    assert later is not None
    for file in path.parent.glob("cluster.db*"):
        file.unlink()
    copy.rename(path)
    assert refused(backend.commit([], [Update("a", b"new", later.version)])) == "a"
    entry = backend.get("a")
    assert entry is not None
    assert entry.value == b""
    assert backend.history() != told
    for file in path.parent.glob("cluster.db*"):
        file.unlink()
    create(open_client(), "a")
    assert refused(backend.commit([], [Update("a", b"new", entry.version)])) == "a"
    wakes = Wakes()
    backend.watch("a", wakes)
    before = wakes.count
    open_client().commit([], [Update("a", b"new")])
    wakes.since(before)


def test_a_file_that_was_set_back_in_place_is_noticed(path: Path, backend: SqliteBackend) -> None:
    """By sqlite's own means, which keep the file: it has a lower number."""
    copy = path.with_name("copy")
    create(backend, "a")
    with closing(sqlite3.connect(path)) as connection, closing(sqlite3.connect(copy)) as other:
        connection.backup(other)
    for _ in range(3):
        backend.commit([], [Update("a", b"later")])
    later, told = backend.get("a"), backend.history()
    assert later is not None
    with closing(sqlite3.connect(path)) as connection, closing(sqlite3.connect(copy)) as other:
        other.backup(connection)
    eventually(lambda: backend.history() != told, 60.0)
    assert refused(backend.commit([], [Update("a", b"new", later.version)])) == "a"


def test_a_damaged_file_is_told_of(path: Path, backend: SqliteBackend) -> None:
    """Garbage within the file is an error that says what to do, never an answer."""
    backend.commit([], [Create(f"d/{number}", b"x" * 3000) for number in range(40)])
    backend.close()
    with path.open("r+b") as file:
        file.seek(12 * 4096)
        file.write(b"\xff" * 20 * 4096)
    with closing(SqliteBackend(path)) as client, pytest.raises(UnavailableError, match="is damaged"):
        client.list("d")


def test_a_full_disk_is_told_of(backend: SqliteBackend) -> None:
    """Nothing is applied; once there is room it goes on."""
    create(backend, "a")
    connection = backend._commits._connection  # pyright: ignore[reportPrivateUsage]
    assert connection is not None
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages + 4}")
    with pytest.raises(OutcomeUnknownError, match="disk is full"):
        backend.commit([], [Create("b", b"x" * 500_000), Update("a", b"new")])
    assert [entry and entry.value for entry in backend.get_many(["a", "b"])] == [b"", None]
    connection.execute("PRAGMA max_page_count = 1000000")
    create(backend, "b", b"x" * 500_000)


@pytest.mark.parametrize(
    ("code", "writing", "error"),
    [
        (sqlite3.SQLITE_BUSY, True, UnavailableError),
        (sqlite3.SQLITE_BUSY_RECOVERY, False, UnavailableError),
        (sqlite3.SQLITE_IOERR_FSYNC, True, OutcomeUnknownError),
        (sqlite3.SQLITE_IOERR_READ, False, UnavailableError),
        (sqlite3.SQLITE_FULL, True, OutcomeUnknownError),
        (sqlite3.SQLITE_READONLY, False, AccessDeniedError),
        (None, False, UnavailableError),
    ],
)
def test_what_errors_mean(code: int | None, writing: bool, error: type[Exception]) -> None:
    """Only what fails in the last step of a commit may have happened; it is not known then."""
    raised = sqlite3.OperationalError("as sqlite says")
    if code is not None:
        raised.sqlite_errorcode = code
    assert type(translate_error(raised, "/x.db", writing=writing)) is error


def test_a_file_that_may_not_be_written_is_told_of(backend: SqliteBackend) -> None:
    """Whoever may not write gets an error that says so, and can read."""
    create(backend, "a")
    connection = backend._commits._connection  # pyright: ignore[reportPrivateUsage]
    assert connection is not None
    connection.execute("PRAGMA query_only = ON")
    with pytest.raises(AccessDeniedError, match="may not write to the file"):
        backend.commit([], [Update("a", b"new")])
    assert backend.get("a") is not None


def test_a_forked_child_is_refused(path: Path, backend: SqliteBackend) -> None:
    """Locks of sqlite do not survive a fork, even for a new client: both say so, and the parent goes on."""
    lease = backend.lease(5.0)
    script = f"""
import os, sys
from smoothcluster_sqlite import SqliteBackend
from smoothcluster.errors import UsageError
backend = SqliteBackend({str(path)!r})
backend.get("a")
child = os.fork()
if child == 0:
    for client in (backend, SqliteBackend({str(path)!r})):
        try:
            client.get("a")
        except UsageError as error:
            print(error, flush=True)
    sys.exit()
os.waitpid(child, 0)
backend.get("a")
backend.close()
"""
    said = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert len(said) == 2
    assert all("forked" in line and "spawn" in line for line in said)
    assert lease.renew() is True


def test_deleting_is_seen_through_two_clients(
    backend: SqliteBackend, open_client: Callable[..., SqliteBackend]
) -> None:
    """A lease that was ended by somebody else is lost to whoever commits on it, and nothing is applied."""
    lease = backend.lease(5.0)
    open_client().revoke(lease.id)
    with pytest.raises(LeaseLostError):
        backend.commit([], [Create("a", b"", lease), Create("b", b"")])
    assert backend.keys("none") == []
    assert backend.get("b") is None


# Whole groups.


@pytest.fixture
def new_group(path: Path, tmp_path: Path) -> Iterator[NewGroup]:
    """Makes a group in the test's file; its processes end with the test."""
    with ExitStack() as stack:

        def make(**options: object) -> Group:
            return stack.enter_context(Group(f"sqlite:///{path}", tmp_path, **options))

        yield make


def wakeups(pid: int) -> int:
    """How often the threads of a process have gone to sleep and were woken."""
    found = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        lines = status.read_text().splitlines()
        found += next(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))
    return found


@pytest.mark.slow
def test_waiting_costs_next_to_nothing(new_group: NewGroup) -> None:
    """Five members that have nothing to do are woken less than a hundred times a second between them.

    Each time costs some 0.2 ms, so that is less than 2 % of one core. The times are counted, and not what they
    cost: that depends on what else the machine does.
    """
    group = new_group()
    group.start(5)
    group.converged()
    before, since = sum(wakeups(member.pid) for member in group.living), SYSTEM_CLOCK.monotonic()
    group.eventually(lambda: SYSTEM_CLOCK.monotonic() > since + 5.0)
    woken = sum(wakeups(member.pid) for member in group.living) - before
    assert woken / (SYSTEM_CLOCK.monotonic() - since) < 100


def paused_in_a_write(group: Group, path: Path) -> Member:
    """Stop a busy Runner, again and again, until that is in the middle of a write: then nobody else can write."""
    jobs = [group.submit(500, "first", nap=0.02)]

    def caught() -> list[Member]:
        if jobs[-1].progress().pending < 200:
            jobs.append(group.submit(500, f"more-{len(jobs)}", nap=0.02))
        for member in group.runners():
            pause(member.pid)
            if f"process {member.pid} is stopped" in describe_lock_holder(str(path)):
                return [member]
            member.resume()
        return []

    return group.eventually(caught)[0]


def stays_as_it_is(group: Group, stall: AbstractContextManager[None]) -> None:
    """If five members *stall* for longer than all their leases.

    When they go on, the same have the same seats, and one that is dead is replaced.
    """
    group.start(5)
    group.converged()
    runners = group.runners()
    with stall:
        until = SYSTEM_CLOCK.monotonic() + 4.0
        group.eventually(lambda: SYSTEM_CLOCK.monotonic() > until)
    job = group.submit(400, nap=0.02)
    group.progressed(group.ended() + 50)
    assert group.runners() == runners
    assert not group.events("lease_lost")
    runners[0].kill()
    group.finish(job, named(400))
    assert len(group.events("joined")) == 5
    group.converged()


@pytest.mark.slow
def test_a_runner_paused_in_the_middle_of_a_write(new_group: NewGroup, path: Path) -> None:
    """Nobody has expired by mistake when it goes on, itself neither, and a dead one is noticed."""
    group = new_group(lease_ttl=1.0)

    @contextmanager
    def stall() -> Generator[None]:
        member = paused_in_a_write(group, path)
        assert not group.can_write()
        yield
        member.resume()

    stays_as_it_is(group, stall())


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of the test's own, mounted."""
    image, mounted = tmp_path / "image", tmp_path / "disk"
    mounted.mkdir()
    with image.open("wb") as file:
        file.truncate(64_000_000)
    try:
        subprocess.run(["mkfs.ext4", "-q", image], check=True, capture_output=True)
        subprocess.run(["mount", "-o", "loop", image, mounted], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a disk of one's own takes root and loop devices: {error}")
    yield mounted
    subprocess.run(["umount", "--lazy", mounted], check=True)


@pytest.mark.slow
def test_a_disk_that_stands_still(disk: Path, tmp_path: Path) -> None:
    """Whoever writes waits in the kernel for as long as it does: nobody has expired when the disk goes on."""
    with Group(f"sqlite:///{disk}/cluster.db", tmp_path, lease_ttl=1.0) as group:

        @contextmanager
        def stall() -> Generator[None]:
            group.submit(500, "first", nap=0.02)
            runners = group.runners()
            group.busy(*runners)
            subprocess.run(["fsfreeze", "--freeze", disk], check=True)
            try:
                group.eventually(lambda: all("D" in states(runner.pid) for runner in runners))
                yield
            finally:
                subprocess.run(["fsfreeze", "--unfreeze", disk], check=True)

        stays_as_it_is(group, stall())
