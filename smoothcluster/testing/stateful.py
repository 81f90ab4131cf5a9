"""Random moves on a backend and on a dict, which must agree: finds cases no test author thought of.

TestRandomMoves = backend_machine(connect).TestCase
"""

import secrets
from collections.abc import Callable, Sequence
from functools import partial

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from smoothcluster.backend import (
    AtVersion,
    Change,
    Committed,
    Condition,
    CoordinationBackend,
    Create,
    Delete,
    Exists,
    Lease,
    Refused,
    Update,
)
from smoothcluster.errors import LeaseLostError
from smoothcluster.testing.clock import eventually
from smoothcluster.testing.stateful_model import (
    DIRECTORY_PATHS,
    KEY_NAMES,
    MOVE_LISTS,
    WATCHED_PATHS,
    Known,
    Model,
    Move,
    Watched,
)

LEASE_TTL_SECONDS = 60.0


def backend_machine(
    make_backend: Callable[[], CoordinationBackend], expire: Callable[[Lease], None] | None = None
) -> type[RuleBasedStateMachine]:
    """A Hypothesis machine of two clients that *make_backend* connects to one store, the same for all runs.

    *expire*, if given, makes the store end a lease without the holder's call, or waits until the lease has run out;
    other leases may end, too.
    """

    class BackendMachine(_Moves):
        """Two clients of one store against a dict."""

        def __init__(self) -> None:
            super().__init__(make_backend(), make_backend())

        if expire is not None:

            @precondition(lambda self: bool(self.leases))
            @rule(index=st.integers(0, 9))
            def end_a_lease(self, index: int) -> None:
                """The store lets a lease run out."""
                assert expire is not None
                _, lease = self.leases[index % len(self.leases)]
                counts = self.counts()
                expire(lease)
                eventually(lambda: not lease.renew())
                self.forget({other.id for _, other in self.leases if not other.renew()}, counts)

    return BackendMachine


class _Moves(RuleBasedStateMachine):
    """The rules."""

    def __init__(self, *clients: CoordinationBackend) -> None:
        super().__init__()
        self.clients = clients
        self.root = f"machine-{secrets.token_hex(8)}"
        self.model = Model()
        self.leases: list[tuple[int, Lease]] = []
        self.ended: list[tuple[int, Lease]] = []
        self.watched: list[Watched] = []

    def teardown(self) -> None:
        """Leave nothing behind."""
        for _, lease in self.leases:
            lease.revoke()
        for entry in self.clients[0].get_many(list(self.model.keys)):
            if entry is not None:
                self.clients[0].commit([], [Delete(entry.key)])
        for client in self.clients:
            client.close()

    @rule(client=st.sampled_from((0, 1)), moves=MOVE_LISTS, on_ended=st.booleans())
    def commit(self, client: int, moves: list[Move], *, on_ended: bool) -> None:
        """A commit has the outcome predicted by the model, and wakes the right watches."""
        lease = self._lease_of(client, ended=on_ended)
        parts = [self._part(move, lease) for move in moves]
        conditions = [part for part in parts if isinstance(part, Exists | AtVersion)]
        changes = [part for part in parts if not isinstance(part, Exists | AtVersion)]
        if not changes:
            changes = [Create(f"{self.root}/extra", b"")]
        hung = any(isinstance(change, Create) and change.lease is not None for change in changes)
        failing = self.model.failing([*conditions, *changes])
        before, counts = dict(self.model.keys), self.counts()
        try:
            outcome = self.clients[client].commit(conditions, changes)
        except LeaseLostError:
            assert hung
            assert on_ended, "a living lease was said to be lost"
            return
        if isinstance(outcome, Refused):
            assert outcome.key in failing, f"refused for {outcome.key}, which holds"
            return
        assert not failing, f"applied in spite of {failing}"
        assert not (hung and on_ended), "applied on a lease that is gone"
        self._check_versions(changes, outcome)
        self.model.apply(changes, dict(outcome.versions))
        self._check_woken(before, counts)

    @precondition(lambda self: len(self.leases) < 4)
    @rule(client=st.sampled_from((0, 1)))
    def grant(self, client: int) -> None:
        """A lease is granted, with a new id."""
        lease = self.clients[client].lease(LEASE_TTL_SECONDS)
        assert lease.id not in {known.id for _, known in (*self.leases, *self.ended)}
        self.leases.append((client, lease))

    @precondition(lambda self: bool(self.leases))
    @rule(index=st.integers(0, 9))
    def revoke(self, index: int) -> None:
        """A lease is revoked."""
        _, lease = self.leases[index % len(self.leases)]
        counts = self.counts()
        lease.revoke()
        self.forget({lease.id}, counts)

    @rule()
    def renew(self) -> None:
        """A lease can be renewed exactly as long as the lease has not ended."""
        assert all(lease.renew() for _, lease in self.leases)
        assert not any(lease.renew() for _, lease in self.ended)

    @precondition(lambda self: len(self.watched) < 6)
    @rule(client=st.sampled_from((0, 1)), path=st.sampled_from(WATCHED_PATHS), values=st.booleans())
    def watch(self, client: int, path: str, *, values: bool) -> None:
        """A watch is armed."""
        watched = Watched(f"{self.root}{path}", values)
        watched.watch = self.clients[client].watch(watched.path, watched.notify, values=values)
        self.watched.append(watched)

    @precondition(lambda self: bool(self.watched))
    @rule(index=st.integers(0, 9))
    def unwatch(self, index: int) -> None:
        """A watch is closed: the others go on."""
        watched = self.watched.pop(index % len(self.watched))
        assert watched.watch is not None
        watched.watch.close()

    @invariant()
    def everybody_reads_what_the_model_holds(self) -> None:
        """Each client reads exactly the model's keys, with their values, versions and leases, in order of creation."""
        keys = [f"{self.root}/{name}" for name in (*KEY_NAMES, "extra")]
        for client in self.clients:
            client.sync()
            entries = client.get_many(keys)
            seen = {entry.key: (entry.value, entry.version, entry.lease) for entry in entries if entry is not None}
            assert seen == {key: (known.value, known.version, known.lease) for key, known in self.model.keys.items()}
            born = [(entry.created, self.model.keys[entry.key].born) for entry in entries if entry is not None]
            assert all((one < two) == (first < second) for one, first in born for two, second in born)

    @invariant()
    def everybody_lists_what_the_model_holds(self) -> None:
        """Directories list exactly the names implied by the model's keys."""
        for client in self.clients:
            client.sync()
            for directory in (f"{self.root}{path}" for path in DIRECTORY_PATHS):
                names = self.model.names(directory)
                assert client.keys(directory) == names
                assert [entry.key for entry in client.list(directory)] == [
                    key for key in names if key in self.model.keys
                ]

    def forget(self, ended: set[str], counts: list[int]) -> None:
        """Record the end of these leases and of their keys; the watches had woken *counts* times before."""
        before = dict(self.model.keys)
        self.ended += [(client, lease) for client, lease in self.leases if lease.id in ended]
        self.leases = [(client, lease) for client, lease in self.leases if lease.id not in ended]
        self.model.keys = {key: known for key, known in before.items() if known.lease not in ended}
        self._check_woken(before, counts)

    def _lease_of(self, client: int, *, ended: bool) -> Lease | None:
        leases = [lease for owner, lease in (self.ended if ended else self.leases) if owner == client]
        return leases[-1] if leases else None

    def _part(self, move: Move, lease: Lease | None) -> Condition | Change:
        key = f"{self.root}/{move.name}"
        had = self.model.versions.get(key, ["0"])
        version = had[-1 - move.version % len(had)]
        match move.act:
            case "create":
                return Create(key, move.value, lease if move.leased else None)
            case "update":
                return Update(key, move.value)
            case "update at":
                return Update(key, move.value, version)
            case "delete":
                return Delete(key)
            case "delete at":
                return Delete(key, version)
            case "exists":
                return Exists(key)
            case _:
                return AtVersion(key, version)

    def _check_versions(self, changes: Sequence[Change], outcome: Committed) -> None:
        written = {change.key for change in changes if not isinstance(change, Delete)}
        assert set(outcome.versions) == written
        if self.clients[0].guarantees.unique_versions:
            for key in written:
                assert outcome.versions[key] not in self.model.versions.get(key, ())

    def counts(self) -> list[int]:
        """The number of wakes of each watch."""
        return [watched.wakes for watched in self.watched]

    def _check_woken(self, before: dict[str, Known], counts: list[int]) -> None:
        """Wait until every watch affected by the change since *before* has woken."""
        after = self.model.keys
        for client in self.clients:
            client.sync()
        for watched, count in zip(self.watched, counts, strict=True):
            for key in {*before, *after}:
                covered = watched.path in (key, key.rpartition("/")[0])
                came_or_went = (key in before) != (key in after)
                if covered and (came_or_went or (watched.values and before[key] != after[key])):
                    eventually(partial(watched.woken_since, count))
