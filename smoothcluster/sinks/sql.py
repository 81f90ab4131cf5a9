"""A results sink in a database, by SQLAlchemy: PostgreSQL or sqlite.

Each write is a transaction: lock the row of the part, insert or overwrite the outcomes by task, note the last commit. A
write that is repeated changes nothing. A replaced owner that writes late writes only outcomes that the coordination
store once accepted, so a late write changes nothing, either.
"""

import re
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, cast

from sqlalchemy import ColumnElement, Connection, Engine, Select, Table, create_engine, delete, func, select, tuple_
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from smoothcluster.arguments import check_name
from smoothcluster.errors import GarbageError, MissingDriverError, PartDeletedError, UnknownSchemeError, UsageError
from smoothcluster.server_options import refuse_credentials
from smoothcluster.sinks import tables
from smoothcluster.sinks.options import CREDENTIALS_ADVICE, RESULTS_OPTIONS_VARIABLE, secrets_of, unavailable
from smoothcluster.sinks.protocol import NumberedOutcome, Part, Tail, check_batch, check_part

ROW_KEY = ("job", "shard", "id_digest")

PAGE_ROWS = 500
"""Number of rows read at once."""

SQLITE_LOCK_SECONDS = 10.0
"""Seconds for which a write waits for other writers of the sqlite file."""

_REFUSING_CLASSES = frozenset({"22", "23", "54", "P0"})
"""Classes of SQLSTATE that a value causes: data, constraint, limit, a trigger's RAISE. A repeat fails again."""

_PACKAGES_OF_DRIVERS = {"psycopg": "psycopg[binary]"}
"""The package to install for a driver, if the package is not named as the driver."""


class SqlSink:
    """Outcomes as rows of a table."""

    def __init__(self, url: str, **options: Any) -> None:
        self._secrets = secrets_of(options)
        address = _address(url)
        self._url = str(address)
        self.engine = _engine(address, options)
        """The engine of SQLAlchemy, for tests."""
        self._insert: Any = postgresql.insert if self.engine.dialect.name == "postgresql" else sqlite.insert
        self._lock, self._ready = threading.Lock(), False

    @classmethod
    def from_url(cls, url: str, **options: Any) -> Self:
        """Make the sink for *url*; *options* are ``username``, ``password``, and keywords of the driver."""
        return cls(url, **options)

    @property
    def url(self) -> str:
        return self._url

    def __repr__(self) -> str:
        return f"<SqlSink {self._url}>"

    def write(self, part: Part, batch: Sequence[NumberedOutcome], after: Tail | None) -> Tail:
        check_batch(batch, after)
        rows = {row["id_digest"]: (row, each) for each in batch for row in [tables.outcome_row(part, each)]}
        with self._telling("write to"):
            self._make_tables()
            with self.engine.begin() as connection:
                self._lock_part(connection, part, batch[-1].seq)
                refused = self._write_rows(connection, part, [*rows.values()])
        total, diverted = (0, 0) if after is None else (after.outcomes, after.diverted)
        return Tail(batch[-1].seq, total + len(rows), diverted + refused)

    def read(self, part: Part, tail: Tail) -> Iterator[NumberedOutcome]:
        same = [tables.OUTCOMES_TABLE.c[name] == tables.REFUSED_TABLE.c[name] for name in ROW_KEY]
        count = 0
        for row in self._pages(tables.OUTCOMES_TABLE, select(*tables.OUTCOME_COLUMNS), part, tail):
            count += 1
            yield tables.read_outcome_row(row)
        # Refused first and accepted by a repeat: the row of the repeat counts.
        elsewhere = select(*tables.REFUSED_COLUMNS).where(~select(tables.OUTCOMES_TABLE.c.job).where(*same).exists())
        for row in self._pages(tables.REFUSED_TABLE, elsewhere, part, tail):
            count += 1
            yield tables.read_refused_row(row)
        if count < tail.outcomes:
            raise GarbageError(
                f"{self._url} has {count} outcomes of job {part.job!r} in shard {part.shard}, and {tail.outcomes} were"
                " written"
            )

    def delete(self, part: Part) -> None:
        with self._telling("delete results from"):
            self._make_tables()
            with self.engine.begin() as connection:
                self._lock_part(connection, part, 0, deleting=True)
                for table in (tables.OUTCOMES_TABLE, tables.REFUSED_TABLE):
                    connection.execute(delete(table).where(table.c.job == part.job, table.c.shard == part.shard))

    def mark(self, name: str) -> None:
        row = self._insert(tables.MARKS_TABLE).values(name=check_name("mark", name)).on_conflict_do_nothing()
        with self._telling("write to"):
            self._make_tables()
            with self.engine.begin() as connection:
                connection.execute(row)

    def has_mark(self, name: str) -> bool:
        with self._telling("read from"):
            self._make_tables()
            with self.engine.connect() as connection:
                found = connection.execute(select(tables.MARKS_TABLE).where(tables.MARKS_TABLE.c.name == name)).first()
        return found is not None

    def close(self) -> None:
        self.engine.dispose()

    def _lock_part(self, connection: Connection, part: Part, last: int, *, deleting: bool = False) -> None:
        """Lock the row of the part until the end of the transaction. Raise PartDeletedError unless *deleting*.

        The first statement of the transaction writes: so sqlite, too, lets in a single writer from here on, and the
        transaction cannot have read an older state.
        """
        row = self._insert(tables.PARTS_TABLE).values(job=check_part(part).job, shard=part.shard, last=last,
                                                deleted=deleting)  # fmt: skip
        change: dict[str, object] = {"deleted": True} if deleting else {"last": row.excluded.last}
        locked = row.on_conflict_do_update(index_elements=["job", "shard"], set_=change).returning(
            tables.PARTS_TABLE.c.deleted
        )
        if connection.execute(locked).scalar_one() and not deleting:
            raise PartDeletedError(f"the results of job {part.job!r} were deleted from {self._url}")

    def _write_rows(
        self, connection: Connection, part: Part, rows: Sequence[tuple[dict[str, Any], NumberedOutcome]]
    ) -> int:
        """Insert or overwrite the rows; put those aside that the table refuses. Return the number of refused rows."""
        insert = self._upsert(tables.OUTCOMES_TABLE)
        try:
            with connection.begin_nested():
                connection.execute(insert, [row for row, _ in rows])
        except DBAPIError as error:
            if not _refuses_value(error):
                raise
        else:
            return 0
        refused: list[dict[str, Any]] = []
        for row, each in rows:
            try:
                with connection.begin_nested():
                    connection.execute(insert, row)
            except DBAPIError as error:
                if not _refuses_value(error):
                    raise
                refused.append(tables.refused_row(part, each, type(error.orig).__name__))
        if refused:
            connection.execute(self._upsert(tables.REFUSED_TABLE), refused)
        return len(refused)

    def _upsert(self, table: Table) -> Any:
        row = self._insert(table)
        change: dict[str, Any] = {
            column.name: row.excluded[column.name] for column in table.c if not column.primary_key
        }
        # After a rollback of the coordination store, the row of a late writer may have another number. The smaller
        # number keeps the row within the tail.
        least = func.least if self.engine.dialect.name == "postgresql" else func.min
        change["seq"] = least(table.c.seq, row.excluded.seq)
        return row.on_conflict_do_update(index_elements=ROW_KEY, set_=change)

    def _pages(self, table: Table, query: Select[Any], part: Part, tail: Tail) -> Iterator[Sequence[Any]]:
        """Read the rows of the part up to *tail*, page by page: no transaction stays open between two pages."""
        place: ColumnElement[Any] = cast("ColumnElement[Any]", tuple_(table.c.seq, table.c.id_digest))
        query = query.where(table.c.job == part.job, table.c.shard == part.shard, table.c.seq <= tail.last)
        query = query.order_by(table.c.seq, table.c.id_digest).limit(PAGE_ROWS)
        behind: tuple[int, str] = (-1, "")
        while True:
            with self._telling("read from"):
                self._make_tables()
                with self.engine.connect() as connection:
                    rows = connection.execute(query.where(place > behind)).all()
            yield from rows
            if len(rows) < PAGE_ROWS:
                return
            behind = cast("tuple[int, str]", tuple(rows[-1])[:2])

    def _make_tables(self) -> None:
        """Make the tables that are missing, once for each sink. Many members may do so at the same time."""
        with self._lock:
            if self._ready:
                return
            for left in range(len(tables.SINK_METADATA.tables), -1, -1):
                try:
                    tables.SINK_METADATA.create_all(self.engine)
                    break
                except DBAPIError as error:
                    # Between the look for a table and its creation, another member may have created the table.
                    if not left or not (isinstance(error, IntegrityError) or "already exists" in str(error.orig)):
                        raise
            self._ready = True

    @contextmanager
    def _telling(self, deed: str) -> Generator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            self._ready = self._ready and self.engine.dialect.name != "sqlite"  # The file may have been removed.
            raise unavailable(self._url, deed, error, self._secrets) from None  # The cause shows rows.


def _refuses_value(error: DBAPIError) -> bool:
    """Whether the database refuses a value for good, rather than being away or busy."""
    if error.connection_invalidated:
        return False
    state = getattr(error.orig, "sqlstate", None) or ""
    return isinstance(error, DataError | IntegrityError) or state[:2] in _REFUSING_CLASSES


def _address(url: str) -> URL:
    """Return *url* in one form; raise UsageError for credentials, or for a database that the sink does not know."""
    if not re.match(r"sqlite(\+\w+)?:///", url) or "?" in url:
        refuse_credentials("results sink", url, CREDENTIALS_ADVICE)
    try:
        address = make_url(url)
        name = address.get_backend_name()
    except (ArgumentError, ValueError):
        raise UsageError("the URL of the results sink is not a database's URL, as in sqlite:///items.db") from None
    if name == "sqlite":
        if not address.database or address.database == ":memory:":
            raise UsageError("a results sink in sqlite needs a file, as in sqlite:///items.db")
        # Absolute: members in different folders must notice that they mean different files.
        return address.set(database=str(Path(address.database).absolute()))
    if name != "postgresql":
        raise UnknownSchemeError(f"results go to databases of sqlite or PostgreSQL, not of {name}")
    if not address.database:
        raise UsageError("the URL of the results sink must name the database, as in postgresql+psycopg://host/items")
    return address


def _engine(address: URL, options: dict[str, Any]) -> Engine:
    arguments = dict(options)
    for name in ("username", "password"):
        if name in arguments:
            if not isinstance(arguments[name], str) or address.get_backend_name() == "sqlite":
                raise UsageError(f"the option {name} in {RESULTS_OPTIONS_VARIABLE} must be text, and is not for sqlite")
            address = address.set(**{name: arguments.pop(name)})
    pool: dict[str, Any] = {"pool_pre_ping": True}  # Before use, try the connection: the server may have restarted.
    if address.get_backend_name() == "sqlite":
        arguments.setdefault("timeout", SQLITE_LOCK_SECONDS)
        pool = {"poolclass": NullPool}  # An open file stays writable after it was moved or deleted.
    try:
        # Messages show no rows: results may be private.
        return create_engine(address, connect_args=arguments, hide_parameters=True, **pool)
    except ModuleNotFoundError as error:
        package = _PACKAGES_OF_DRIVERS.get(error.name or "", error.name)
        raise MissingDriverError(
            f"{address.drivername}:// needs a driver that is not installed ({error.name}): pip install '{package}'"
        ) from None
    except (NoSuchModuleError, ArgumentError):
        raise UnknownSchemeError(f"SQLAlchemy knows no driver for {address.drivername}://") from None
