"""Results as rows: in a sqlite file, and in a real PostgreSQL."""

import json
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from postgresql_server import PostgresqlServer
from sqlalchemy import event, text

from smoothcluster.errors import MissingDriverError, SinkUnavailableError, UnknownSchemeError, UsageError
from smoothcluster.sinks import Part, ResultSink, open_sink
from smoothcluster.sinks.sql import SqlSink
from smoothcluster.testing import SinkAbility, SinkConformance
from smoothcluster.testing.sink_conformance.kit import numbered, read_all

PART = Part("j", 3)


def run(sink: ResultSink, *statements: str) -> list[Any]:
    """What the last statement finds, in the database of *sink*."""
    assert isinstance(sink, SqlSink)
    with sink.engine.begin() as connection:
        *_, last = [connection.execute(text(statement)) for statement in statements]
        return [*last] if last.returns_rows else []


class TestSqlite(SinkConformance):
    """A file of sqlite."""

    abilities = frozenset({SinkAbility.AWAY, SinkAbility.REFUSE, SinkAbility.KILL})
    kill_points = frozenset({"do_begin", "do_execute", "do_executemany", "do_commit"})
    least_kills, most_kills = 6, 8
    file: Path

    @pytest.fixture(autouse=True)
    def _file(self, tmp_path: Path) -> None:
        self.file = tmp_path / "items.db"

    @property
    def url(self) -> str:
        return f"sqlite:///{self.file}"

    def take_away(self) -> None:
        self.file.rename(self.file.with_name("away"))
        self.file.mkdir()

    def bring_back(self) -> None:
        self.file.rmdir()
        self.file.with_name("away").rename(self.file)

    def refuse(self, sink: ResultSink, job: str, task_id: str) -> None:
        run(
            sink,
            "CREATE TRIGGER picky BEFORE INSERT ON smoothcluster_outcomes"
            f" WHEN NEW.job = '{job}' AND NEW.task_id = '{task_id}' BEGIN SELECT RAISE(ABORT, 'no'); END",
        )


@pytest.fixture(scope="module")
def postgresql() -> Iterator[PostgresqlServer]:
    """A server of our own."""
    with PostgresqlServer() as server:
        yield server


class TestPostgresql(SinkConformance):
    """A database of a server that crashes and comes back."""

    abilities = frozenset({SinkAbility.AWAY, SinkAbility.REFUSE, SinkAbility.KILL})
    options = MappingProxyType({"username": "crawler", "password": "secret-word"})
    kill_points = frozenset({"do_begin", "do_execute", "do_executemany", "do_commit"})
    least_kills, most_kills = 6, 8
    server: PostgresqlServer

    @pytest.fixture(autouse=True)
    def _server(self, postgresql: PostgresqlServer) -> None:
        self.server = postgresql

    @property
    def url(self) -> str:
        return self.server.url

    def take_away(self) -> None:
        self.server.kill()

    def bring_back(self) -> None:
        self.server.start()

    def refuse(self, sink: ResultSink, job: str, task_id: str) -> None:
        run(
            sink,
            "ALTER TABLE smoothcluster_outcomes DROP CONSTRAINT IF EXISTS picky",
            "ALTER TABLE smoothcluster_outcomes ADD CONSTRAINT picky"
            f" CHECK (job <> '{job}' OR task_id <> '{task_id}')"
            " NOT VALID",
        )

    def test_a_trigger_refuses(self, sink: ResultSink, part: Part) -> None:
        """A RAISE in a function of the user's own is no outage."""
        sink.mark(part.job)
        run(
            sink,
            "CREATE FUNCTION picky() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN IF NEW.task_id = 'task8' THEN RAISE EXCEPTION 'no'; END IF; RETURN NEW; END $$",
            "CREATE TRIGGER picky BEFORE INSERT ON smoothcluster_outcomes FOR EACH ROW EXECUTE FUNCTION picky()",
        )
        tail = sink.write(part, numbered(7, 8, 9), None)
        run(sink, "DROP FUNCTION picky CASCADE")
        assert tail.diverted == 1
        assert read_all(sink, part, tail) == numbered(7, 8, 9)


def test_a_password_is_in_no_message(postgresql: PostgresqlServer) -> None:
    """Neither of the sink, nor of an error; and without a server, each call tells the address."""
    options = {"username": "crawler", "password": "secret-word"}
    sink = open_sink(postgresql.url.replace("/items", "/secret-word"), options)
    with closing(sink), pytest.raises(SinkUnavailableError) as caught:
        sink.write(PART, numbered(1), None)
    assert str(postgresql.port) in str(caught.value)
    assert sink.url.endswith("secret-word"), "the name of the database here"
    assert "secret-word" not in str(caught.value).removeprefix(f"cannot write to {sink.url}")
    assert "secret-word" not in repr(open_sink(postgresql.url, options))


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[SqlSink]:
    """A sink in a file."""
    found = SqlSink(f"sqlite:///{tmp_path}/items.db")
    yield found
    found.close()


def test_users_find_their_items_in_the_table(sink: SqlSink) -> None:
    """A row for each task, with the value as JSON."""
    sink.write(PART, numbered(1, 2), None)
    rows = run(sink, "SELECT task_id, state, json_extract(value, '$') FROM smoothcluster_outcomes ORDER BY seq")
    assert [(*row,) for row in rows] == [("task1", "done", 1), ("task2", "done", 2)]


def test_a_refused_outcome_that_is_accepted_later_is_there_once(sink: SqlSink) -> None:
    """The user removes the constraint, and a successor repeats the write."""
    sink.mark("here")
    TestSqlite().refuse(sink, PART.job, "task2")
    begin = sink.write(PART, numbered(1), None)
    first = sink.write(PART, numbered(2), begin)
    run(sink, "DROP TRIGGER picky")
    second = sink.write(PART, numbered(2), begin)
    assert (first.diverted, second.diverted) == (1, 0)
    for tail in (first, second):
        assert read_all(sink, PART, tail) == numbered(1, 2)


def test_a_write_is_one_transaction(sink: SqlSink) -> None:
    """Nothing of it is there until all is, and then the lock of the part is gone, too."""
    said: list[str] = []

    def record_commit(_: Any) -> None:
        said.append("commit")

    begin = sink.write(PART, numbered(1), None)
    event.listen(sink.engine, "commit", record_commit)
    event.listen(sink.engine, "before_cursor_execute", lambda *args: said.append(args[2].split()[0]))
    sink.write(PART, numbered(*range(2, 1000)), begin)
    assert said[0] == "INSERT", "the first statement locks the row of the part"
    assert said.count("commit") == 1
    assert said[-1] == "commit"


def test_a_table_that_somebody_changed_is_an_outage(sink: SqlSink) -> None:
    """No value is at fault, so no outcome is put aside: the writer waits until somebody mends the table."""
    begin = sink.write(PART, numbered(1), None)
    run(sink, "ALTER TABLE smoothcluster_outcomes RENAME COLUMN runner TO walker")
    with pytest.raises(SinkUnavailableError, match="runner"):
        sink.write(PART, numbered(2), begin)
    run(sink, "ALTER TABLE smoothcluster_outcomes RENAME COLUMN walker TO runner")
    assert read_all(sink, PART, sink.write(PART, numbered(2), begin)) == numbered(1, 2)


def test_two_clients_make_the_tables_at_once(postgresql: PostgresqlServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The slower one finds them there."""
    from smoothcluster.sinks import tables

    options = {"username": "crawler"}
    with closing(open_sink(postgresql.url, options)) as quick, closing(open_sink(postgresql.url, options)) as slow:
        run(slow, *(f"DROP TABLE IF EXISTS {table.name}" for table in tables.SINK_METADATA.sorted_tables))
        create, calls = tables.SINK_METADATA.create_all, iter(["slow", "quick", "slow again"])

        def create_late(engine: Any) -> None:
            late = next(calls) == "slow"
            if late:  # It has looked, and found no table.
                quick.mark("x")
            create(engine, checkfirst=not late)

        monkeypatch.setattr(tables.SINK_METADATA, "create_all", create_late)
        slow.mark("y")
        assert quick.has_mark("y")
        assert next(calls, None) is None


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql+psycopg://crawler:secret-word@h/items", "must not contain a username or password"),
        ("postgresql+psycopg://h/items?password=secret-word", "must not contain a username or password"),
        ("postgresql+psycopg://h", "must name the database"),
        ("sqlite://", "needs a file"),
        ("sqlite:///:memory:", "needs a file"),
    ],
)
def test_wrong_urls(url: str, message: str) -> None:
    """The message says what to write, and shows no part: a password may be anywhere."""
    with pytest.raises(UsageError, match=message) as caught:
        open_sink(url, {})
    assert "secret-word" not in str(caught.value)


def test_databases_and_drivers_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the databases that there are, or the package to install."""
    with pytest.raises(UnknownSchemeError, match="sqlite or PostgreSQL, not of mysql"):
        open_sink("mysql://h/items", {})
    with pytest.raises(UnknownSchemeError, match="no driver for postgresql"):
        open_sink("postgresql+nonsense://h/items", {})
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingDriverError, match=r"pip install 'psycopg\[binary\]'"):
        open_sink("postgresql+psycopg://h/items", {})


@pytest.mark.parametrize("options", [{"username": 1}, {"password": None}], ids=str)
def test_wrong_options(options: dict[str, Any]) -> None:
    """A password is text."""
    with pytest.raises(UsageError, match="must be text"):
        open_sink("postgresql+psycopg://h/items", options)


def test_a_relative_file_is_a_file_of_this_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Members that run in different folders have different URLs, and notice."""
    monkeypatch.chdir(tmp_path)
    assert open_sink("sqlite:///items.db", {}).url == f"sqlite:///{tmp_path}/items.db"


def test_options_come_from_the_variable(postgresql: PostgresqlServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name of the user, the password, and options of the driver."""
    options = {"username": "crawler", "password": "secret-word", "application_name": "the crawl"}
    monkeypatch.setenv("SMOOTHCLUSTER_RESULTS_OPTIONS", json.dumps(options))
    with closing(open_sink(postgresql.url)) as sink:
        (name,) = run(sink, "SELECT current_setting('application_name'), current_user")
    assert (*name,) == ("the crawl", "crawler")
