"""Wrong arguments of public calls: always a UsageError that names the argument, at once, and nothing has happened."""

from collections.abc import Callable, Iterator
from math import inf, nan
from typing import Any

import pytest

from smoothcluster import Cluster, ClusterCrawler, Isolation, Pacing, Task, connect
from smoothcluster.errors import UsageError
from smoothcluster.memory import MemoryBackend
from smoothcluster.recipes import Lock, Session

BACKEND = "backend must be an object such as connect('zookeeper://127.0.0.1:2181'), not "
ENDLESS_INT = 10**400

Wrong = tuple[Any, str]


@pytest.fixture
def backend() -> Iterator[MemoryBackend]:
    """A store."""
    backend = MemoryBackend()
    yield backend
    backend.close()


def nothing(task: Task, context: object) -> None:
    """It is done."""


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("memory://user:secret@host", f"{BACKEND}str"),
        (None, f"{BACKEND}NoneType"),
        (5, f"{BACKEND}int"),
        (MemoryBackend, f"{BACKEND}the class MemoryBackend"),
    ],
)
def test_what_is_no_backend_is_refused_everywhere(value: Any, says: str) -> None:
    """A URL, for example; the error does not show it."""
    session = Session(MemoryBackend(), 10)
    calls: list[Callable[[], object]] = [
        lambda: Cluster(value),
        lambda: ClusterCrawler(backend=value, runner=1, handler=nothing),
        lambda: Session(value, 10),
        lambda: Lock(value, session, "lock"),
    ]
    for call in calls:
        with pytest.raises(UsageError) as caught:
            call()
        assert str(caught.value) == says


SECONDS: list[Wrong] = [
    ("1", "not '1'"), (nan, "not nan"), (-1, "0 seconds or more, not -1"), (True, "not True"), ([], "not []"),
    (ENDLESS_INT, "must be at most 1000000000 seconds, not 1000"), (1e10, "at most"),
]  # fmt: skip
FINITE: list[Wrong] = [*SECONDS, (inf, "at most 1000000000 seconds, not inf"), (None, "not None")]
POSITIVE: list[Wrong] = [(value, says.replace("0 seconds or more", "more than 0 seconds")) for value, says in FINITE]


@pytest.mark.parametrize(("timeout", "says"), SECONDS)
def test_a_timeout_is_a_length_of_time(backend: MemoryBackend, timeout: Any, says: str) -> None:
    """Or None; or infinite, which is the same. Below 0 is a mistake, not an end at once, and not an endless wait."""
    job = Cluster(backend).submit([Task(id="a")])
    with pytest.raises(UsageError, match=r"^timeout must be ") as caught:
        job.wait(timeout)
    assert says in str(caught.value)
    with pytest.raises(UsageError, match=r"^timeout must be ") as caught:
        Lock(backend, Session(backend, 10), "lock").acquire(timeout)
    assert says in str(caught.value)
    assert backend.list("lock") == []


def test_a_timeout_without_an_end(backend: MemoryBackend) -> None:
    """Nothing overflows."""
    with ClusterCrawler(backend=backend, runner=1, handler=nothing):
        assert Cluster(backend, patience=inf).submit([Task(id="a")]).wait(inf).done == 1
    first, second = (Lock(backend, Session(backend, 60), "lock") for _ in range(2))
    assert first.acquire(inf)
    watch = backend.watch("lock", lambda: first.release() if len(backend.keys("lock")) == 2 and first.held() else None)
    assert second.acquire(inf)
    watch.close()


@pytest.mark.parametrize(("patience", "says"), [*SECONDS, (None, "not None")])
def test_patience_is_a_length_of_time(backend: MemoryBackend, patience: Any, says: str) -> None:
    """It may be infinite."""
    with pytest.raises(UsageError, match=r"^patience must be ") as caught:
        Cluster(backend, patience=patience)
    assert says in str(caught.value)


@pytest.mark.parametrize(("ttl", "says"), [*POSITIVE, (0, "more than 0 seconds, not 0")])
def test_a_lease_has_a_finite_time(backend: MemoryBackend, ttl: Any, says: str) -> None:
    """Of a session, and of a member."""
    with pytest.raises(UsageError, match=r"^ttl must be ") as caught:
        Session(backend, ttl)
    assert says in str(caught.value)
    with pytest.raises(UsageError, match=r"^lease_ttl must be ") as caught:
        ClusterCrawler(backend=backend, runner=1, handler=nothing, lease_ttl=ttl)
    assert says in str(caught.value)
    assert Cluster(backend).absent()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        *(({"grace": value}, says) for value, says in FINITE),
        ({"name": None}, "name must be text, not None"),
        ({"name": 5}, "name must be text, not 5"),
        ({"group": None}, "group must be text, not None"),
        ({"group": b"x"}, "group must be text, not b'x'"),
        ({"concurrency": 10**9}, "concurrency must be at most 100000, not 1000000000"),
        ({"listen": 5}, "listen must be text, not 5"),
        ({"order": 5}, "order must be a function, not 5"),
        ({"order": None}, "order must be a function, not None"),
        ({"warm_up": "x"}, "warm_up must be a function, not 'x'"),
        ({"require": 5}, 'require must be a dict such as {"survives_failover": True}, not int: 5'),
        ({"require": ["survives_failover"]}, "not list: ['survives_failover']"),
        ({"require": {"survives_failover": "yes"}}, "require: "),
    ],
)
def test_a_member_with_wrong_arguments_does_not_join(backend: MemoryBackend, options: Any, says: str) -> None:
    """The error names the argument."""
    with pytest.raises(UsageError) as caught:
        ClusterCrawler(**{"backend": backend, "runner": 1, "handler": nothing} | options)
    assert says in str(caught.value)
    assert Cluster(backend).absent()


@pytest.mark.parametrize("name", [None, 5, b"x", ["x"]])
def test_names_are_text(backend: MemoryBackend, name: Any) -> None:
    """Of groups, jobs and quarantined tasks."""
    cluster = Cluster(backend)
    calls: list[Callable[[], object]] = [
        lambda: Cluster(backend, name), lambda: cluster.job(name), lambda: cluster.release(name),
        lambda: cluster.drop(name),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(UsageError, match="must be text, not "):
            call()


@pytest.mark.parametrize("field", ["shards", "least", "pause", "share", "window", "memory", "quiet"])
@pytest.mark.parametrize("value", ["x", None, nan, -1, True])
def test_pacing_is_checked_when_it_is_made(field: str, value: Any) -> None:
    """As other groups of options are."""
    with pytest.raises(UsageError, match=f"pacing: {field} must be "):
        Pacing(**{field: value})


def test_limits_of_isolation_are_finite() -> None:
    """None is the way to say that there is none."""
    for limit in ("timeout", "memory"):
        with pytest.raises(UsageError, match=f"{limit} must be more than 0, not inf"):
            Isolation(**{limit: inf})  # type: ignore[arg-type]


@pytest.mark.parametrize("directory", [None, 5, b"x", "", "/lock", "a//b", "a b", "../a", "/".join("x" * 40)])
def test_a_lock_lies_at_a_key(backend: MemoryBackend, directory: Any) -> None:
    """Any other place is refused by the constructor."""
    with pytest.raises(UsageError, match="is not valid: use a key such as 'locks/index'"):
        Lock(backend, Session(backend, 10), directory)


def test_a_lock_has_a_session_and_an_owner(backend: MemoryBackend) -> None:
    """Of their types."""
    wrong: Any = 5
    with pytest.raises(UsageError, match="session must be a Session, not int: 5"):
        Lock(backend, wrong, "lock")
    with pytest.raises(UsageError, match="owner must be text, not 5"):
        Lock(backend, Session(backend, 10), "lock", owner=wrong)


@pytest.mark.parametrize("url", [5, b"memory://", ["memory://"], True])
def test_a_url_is_text(url: Any) -> None:
    """Else there is nothing to connect to."""
    with pytest.raises(UsageError, match="the URL of a backend must be text"):
        connect(url)


@pytest.mark.parametrize(
    ("url", "options", "says"),
    [
        ("memory://", {"timeout": "x"}, "memory://: the option timeout must be float, not str"),
        ("memory://", {"timeout": None}, "must be float, not NoneType"),
        ("sqlite://", {"timeout": True}, "must be float, not bool"),
        ("sqlite://", {"timeout": nan}, "must be a finite number, not nan"),
        ("sqlite://", {"timeout": inf}, "must be a finite number, not inf"),
        ("redis://h", {"password": 5}, "the option password must be str or None, not int"),
        ("redis://h", {"verify_certs": "no"}, "the option verify_certs must be bool or None, not str"),
        ("zookeeper://h", {"ca": ["ca.pem"]}, "the option ca must be str or None, not list"),
        ("etcd://h", {"timeout": [5]}, "the option timeout must be float, not list"),
    ],
)
def test_an_option_of_a_backend_has_its_type(url: str, options: dict[str, Any], says: str) -> None:
    """By the adapter's annotations; the value, which may be a password, is not shown."""
    pytest.importorskip({"redis": "redis", "zookeeper": "kazoo", "etcd": "etcd3"}.get(url.partition(":")[0], "json"))
    with pytest.raises(UsageError) as caught:
        connect(url, **options)
    assert says in str(caught.value)


@pytest.mark.parametrize("data", [None, 5, "x", [], [("id", "x")]])
def test_a_task_is_read_from_an_object(data: Any) -> None:
    """Of JSON."""
    with pytest.raises(UsageError, match="a task must be a JSON object, not "):
        Task.from_json(data)
