"""etcd with large directories: the work that a listing makes for the server."""

# pyright: reportPrivateUsage=false

import secrets
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from etcd_server import EtcdServer, rpc
from smoothcluster_etcd import EtcdBackend
from smoothcluster_etcd.connection import Connection

from smoothcluster.backend import Create
from smoothcluster.testing.conformance.kit import create, fill


@pytest.fixture
def backend(etcd_server: EtcdServer) -> Iterator[EtcdBackend]:
    """A client of the shared server, in a namespace of its own."""
    client = EtcdBackend(etcd_server.hosts, namespace=f"test-{secrets.token_hex(8)}")
    yield client
    client.close()


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The answers to ranges from now on."""
    found: list[Any] = []
    call: Callable[..., Any] = Connection.call

    def recorded(connection: Connection, method: str, *args: Any) -> Any:
        answer = call(connection, method, *args)
        if method == "txn":
            found.extend(each.response_range for each in answer.responses)
        return answer

    monkeypatch.setattr(Connection, "call", recorded)
    return found


def counted(pages: Sequence[Any]) -> int:
    """The keys that etcd has counted for these answers: all of each range, whatever the limit of the answer."""
    return sum(page.count for page in pages)


@pytest.mark.parametrize(
    ("size", "length"),
    [
        pytest.param(10_000, 2000, id="short"),
        pytest.param(100_000, 2000, id="long", marks=pytest.mark.long),
    ],
)
def test_a_listing_costs_the_server_linear_time(
    backend: EtcdBackend, monkeypatch: pytest.MonkeyPatch, pages: list[Any], size: int, length: int
) -> None:
    """The server counts each key a few times, not once for each page. Each page is bounded, in keys and in bytes."""
    names = fill(backend, "a", size, b"x" * length)
    if size < 100_000:  # Then fewer keys to a page make as many pages.
        monkeypatch.setattr("smoothcluster_etcd.listing._MOST_KEYS", 100)
    pages.clear()
    assert [entry.key for entry in backend.list("a")] == names
    assert counted(pages) <= 20 * size
    assert len(pages) <= size // 80
    assert max(len(page.kvs) for page in pages) <= 1000
    assert max(page.ByteSize() for page in pages) <= 2 * 2**20
    pages.clear()
    assert backend.keys("a") == names
    assert counted(pages) <= 20 * size
    assert len(pages) <= size // 80


def shapes() -> dict[str, list[str]]:
    """Names of several kinds, 3000 each."""
    return {
        "numbers": [f"{number}" for number in range(3000)],
        "random": [secrets.token_hex(8) for _ in range(3000)],
        "alike": ["x" * 300 + f"{number:05}" for number in range(3000)],
        "in groups": [f"{number // 150:02}" + "x" * 100 + f"{number:05}" for number in range(3000)],
        "one after another": ["a" * (number % 200) + f"b{number}" for number in range(3000)],
        "with directories": [f"{number // 10:03}{'/deep' * (number % 3)}/{number}" for number in range(3000)],
    }


@pytest.mark.parametrize("shape", shapes())
def test_whatever_the_names_all_are_listed(
    backend: EtcdBackend, monkeypatch: pytest.MonkeyPatch, pages: list[Any], shape: str
) -> None:
    """Each once, with pages so small that there are many."""
    monkeypatch.setattr("smoothcluster_etcd.listing._FEWEST_KEYS", 10)
    monkeypatch.setattr("smoothcluster_etcd.listing._MOST_KEYS", 20)
    names = sorted(f"a/{name}" for name in shapes()[shape])
    for start in range(0, len(names), 60):
        backend.commit([], [Create(name, b"") for name in names[start : start + 60]])
    create(backend, "a-after")
    pages.clear()
    assert backend.keys("a") == sorted({"/".join(name.split("/")[:2]) for name in names})
    assert [entry.key for entry in backend.list("a")] == [name for name in names if name.count("/") == 1]
    assert counted(pages) <= 2 * 100 * len(names)


def test_keys_of_others_are_passed_over_at_any_edge(
    backend: EtcdBackend, etcd_server: EtcdServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even those whose bytes have no successor."""
    monkeypatch.setattr("smoothcluster_etcd.listing._FEWEST_KEYS", 2)
    monkeypatch.setattr("smoothcluster_etcd.listing._MOST_KEYS", 2)
    monkeypatch.setattr("smoothcluster_etcd.listing._MOST_PAGES_PER_RANGE", 1)
    names = fill(backend, "a", 20)
    prefix = f"{backend._namespace}/a/".encode()
    for foreign in (b"\xff", b"\xff\xff", b"\xff\xff\xff", b"\xff\xffa", b"0\xff", b"0\xff\xff", b"0\xff\xffz"):
        etcd_server.ask("KV", "Put", rpc.PutRequest(key=prefix + foreign, value=b"?"))
    assert backend.keys("a") == [entry.key for entry in backend.list("a")] == names


def test_what_lies_deep_is_stepped_over(
    backend: EtcdBackend, monkeypatch: pytest.MonkeyPatch, pages: list[Any]
) -> None:
    """However many keys lie below a name, and though a page of them has narrowed the range."""
    monkeypatch.setattr("smoothcluster_etcd.listing._MOST_KEYS", 20)
    fill(backend, "a/deep/deeper", 2000)
    create(backend, "a/z")
    pages.clear()
    assert backend.keys("a") == ["a/deep", "a/z"]
    assert len(pages) <= 10


@pytest.mark.parametrize("values", [False, True], ids=["keys", "list"])
def test_a_listing_begins_again_after_a_rollback_between_two_pages(
    backend: EtcdBackend, monkeypatch: pytest.MonkeyPatch, values: bool
) -> None:
    """Else the pages would be of two stores. Every version is of the new era."""
    monkeypatch.setattr("smoothcluster_etcd.listing._FEWEST_KEYS", 10)
    monkeypatch.setattr("smoothcluster_etcd.listing._MOST_KEYS", 10)
    names = fill(backend, "a", 40)
    timeline, read, answers = backend._connection.timeline, backend._read, list[Any]()

    def rolled_back(*wanted: Any) -> Iterator[Any]:
        answers.extend(read(*wanted))
        if len(answers) == 2:
            assert timeline.advance(1, timeline.mark())
        return iter(answers[-1:])

    monkeypatch.setattr(backend, "_read", rolled_back)
    if values:
        assert [(each.key, each.version.partition("~")[2]) for each in backend.list("a")] == [
            (name, "1") for name in names
        ]
    else:
        assert backend.keys("a") == names
    assert timeline.mark().era == 1
    assert len(answers) >= 6
