"""Redis with large directories: a listing in steps, each bounded, and whatever happens between two steps."""

# pyright: reportPrivateUsage=false

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from hashlib import sha1
from typing import Any

import pytest
from redis_server import RedisServer
from smoothcluster_redis import RedisBackend, connection
from smoothcluster_redis.servers import Servers

from smoothcluster.backend import AtVersion, Committed, Create, Delete, Entry, Refused
from smoothcluster.testing.conformance.kit import create, fill

MEGABYTE = 2**20


@pytest.fixture
def backend(redis_hosts: str) -> Iterator[RedisBackend]:
    """A client of the shared server, in a namespace of its own."""
    client = RedisBackend(redis_hosts, namespace=f"test-{secrets.token_hex(8)}")
    yield client
    client.close()


def listed(backend: RedisBackend, directory: str) -> list[str]:
    """The keys of the entries in *directory*."""
    return [entry.key for entry in backend.list(directory)]


class Runs:
    """The answers to runs of the script that read, and what to do between two of them."""

    def __init__(self) -> None:
        self.answers: list[tuple[str, Sequence[bytes]]] = []
        self.between: Callable[[int], object] = lambda _: None
        self._inside = False

    def note(self, act: str, answer: Sequence[bytes]) -> None:
        """Called after each."""
        if act in ("get", "keys", "list") and not self._inside:
            self.answers.append((act, answer))
            self._inside = True
            self.between(len(self.answers))
            self._inside = False

    def names(self) -> list[int]:
        """How many names each answer to a step of a listing has."""
        return [len(answer[0].split(b"\n")[1].split()) for act, answer in self.answers if act != "get"]

    def sizes(self) -> list[int]:
        """The bytes of each answer."""
        return [sum(len(part or b"") for part in answer) for _, answer in self.answers]


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    """What the script answers from now on."""
    found = Runs()
    run: Callable[..., Any] = Servers.run

    def noted(servers: Servers, act: str, *args: Any, **options: Any) -> Any:
        answer = run(servers, act, *args, **options)
        found.note(act, answer)
        return answer

    monkeypatch.setattr(Servers, "run", noted)
    return found


@pytest.mark.parametrize(
    "size", [pytest.param(10_000, id="short"), pytest.param(100_000, id="long", marks=pytest.mark.long)]
)
def test_no_step_of_a_listing_holds_up_the_server(backend: RedisBackend, runs: Runs, size: int) -> None:
    """Each has about a thousand names; so many steps as that makes, and no more."""
    names = fill(backend, "a", size, b"short")
    for listing in (backend.keys, partial(listed, backend)):
        runs.answers.clear()
        assert listing("a") == names
        assert max(runs.names()) <= 1500
        assert len(runs.answers) <= size // 500
    outcome, entries = backend.commit_and_list([], [Delete(names[0])], "a")
    assert isinstance(outcome, Committed)
    assert [entry.key for entry in entries] == names[1:]


def test_no_step_has_many_bytes_of_values(backend: RedisBackend, runs: Runs) -> None:
    """Of values that are long, the others are asked for by name; of long and short ones, each is read once."""
    names = fill(backend, "a", 100, b"x" * 50_000)
    for number in range(3):
        backend.commit([], [Create(f"b/{number}", b"x" * 900_000)])
    names_of_b = [f"b/{number}" for number in range(3)] + fill(backend, "b", 200, b"x" * 5000)
    reads: list[tuple[Callable[[], Sequence[Entry | None]], list[str]]] = [
        (lambda: backend.list("a"), names),
        (lambda: backend.list("b"), sorted(names_of_b)),
        (lambda: backend.get_many(names_of_b), names_of_b),
    ]
    for read, wanted in reads:
        runs.answers.clear()
        assert [entry and entry.key for entry in read()] == wanted
        # A slice of twenty keys is read as a whole.
        assert max(runs.sizes()) <= MEGABYTE + 20 * 50_000 + 3 * 900_000
        assert len(runs.answers) <= 12
    assert all(entry and len(entry.value) == 50_000 for entry in backend.get_many(names))


@pytest.fixture
def short_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step of a listing has about a hundred names, instead of a thousand."""
    usual, short = "STEP_NAMES, STEP_BYTES, SLICE = 1000,", "STEP_NAMES, STEP_BYTES, SLICE = 100,"
    assert usual in connection._SCRIPT_SOURCE
    script = connection._SCRIPT_SOURCE.replace(usual, short)
    monkeypatch.setattr(connection, "_SCRIPT_SOURCE", script)
    monkeypatch.setattr(connection, "_SCRIPT_SHA", sha1(script.encode(), usedforsecurity=False).hexdigest().encode())


@pytest.mark.usefixtures("short_steps")
@pytest.mark.parametrize("change", ["grows", "shrinks"])
def test_what_is_there_throughout_is_listed_once(
    backend: RedisBackend, runs: Runs, redis_hosts: str, change: str
) -> None:
    """While the directory grows or shrinks so that Redis moves its names to another table between the steps."""
    names = fill(backend, "a", 300)
    others = [f"a/other-{number}" for number in range(2400)]
    with closing(RedisBackend(redis_hosts, namespace=backend._address.namespace)) as other:

        def come() -> None:
            other.commit([], [Create(name, b"") for name in others])

        def go() -> None:
            other.commit([], [Delete(name) for name in others])

        for listing in (backend.keys, partial(listed, backend)):
            if change == "shrinks":
                come()
            runs.answers.clear()
            runs.between = lambda step: (come() if change == "grows" else go()) if step == 2 else None
            found = listing("a")
            assert len(runs.answers) > 3
            assert found == sorted(set(found))
            assert set(names) <= set(found)
            assert set(found) <= {*names, *others}
            if change == "grows":
                go()


def test_a_name_in_two_steps_is_listed_once(backend: RedisBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis may answer so while it moves the names of a directory. Here the first step comes twice."""
    names = fill(backend, "a", 3000)
    run: Callable[..., Any] = Servers.run
    again = "-1"

    def repeated(servers: Servers, act: str, words: Sequence[str], *args: Any, **options: Any) -> Any:
        answer = run(servers, act, [words[0], "0" if words[1] == again else words[1]], *args, **options)
        if words[1] == "0":
            answer[0] = again.encode() + answer[0][answer[0].index(b"\n") :]
        return answer

    monkeypatch.setattr(Servers, "run", repeated)
    assert backend.keys("a") == listed(backend, "a") == names


def test_a_listing_begins_again_in_another_history(server: RedisServer, runs: Runs) -> None:
    """A cursor means nothing to another server process; and no version of before may be handed out."""
    with closing(RedisBackend(server.hosts)) as backend, closing(RedisBackend(server.hosts)) as other:
        names = fill(backend, "a", 4000)

        def lose(step: int) -> None:
            if step == 2:
                server.ask("HSET", "{smoothcluster}:meta", "store", "another process")
                other.history()

        runs.between = lose
        found = backend.list("a")
        assert len(runs.answers) > 4 + 2
        assert [entry.key for entry in found] == names
        versions = {entry.version.partition("-")[2] for entry in found}
        assert len(versions) == 1
        conditions = [AtVersion(entry.key, entry.version) for entry in found[:100]]
        assert not isinstance(backend.commit(conditions, [Create("b", b"")]), Refused)


def test_a_listing_begins_again_if_its_last_values_are_of_another_history(server: RedisServer, runs: Runs) -> None:
    """The values beyond a megabyte are read by name, after all steps."""
    with closing(RedisBackend(server.hosts)) as backend, closing(RedisBackend(server.hosts)) as other:
        names = fill(backend, "a", 200, b"x" * 10_000)

        def lose(step: int) -> None:
            if step == 1:
                server.ask("HSET", "{smoothcluster}:meta", "store", "another process")
                other.history()

        runs.between = lose
        found = backend.list("a")
        assert [act for act, _ in runs.answers] == ["list", "get", "list", "get"]
        assert [entry.key for entry in found] == names
        assert len({entry.version.partition("-")[2] for entry in found}) == 1


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A server of the test's own."""
    with RedisServer() as own:
        yield own


def test_a_step_from_nowhere_is_empty(backend: RedisBackend) -> None:
    """An absent directory, and a key, list as empty."""
    create(backend, "a/1")
    for path in ("none", "a/1"):
        assert backend.keys(path) == []
        assert backend.list(path) == []
