"""Rules of commits: all or nothing, a single winner of each race, size limits."""

from collections.abc import Sequence
from functools import partial

import pytest

from smoothcluster.backend import (
    AtVersion,
    Change,
    Committed,
    Condition,
    CoordinationBackend,
    Create,
    Delete,
    Entry,
    Exists,
    Update,
    commit_size,
)
from smoothcluster.errors import CommitTooLargeError
from smoothcluster.testing.conformance.kit import Kit, create, in_parallel, refused

Part = Condition | Change


def failing(root: str, now: str, old: str) -> dict[str, Part]:
    """Parts that fail, where ``there`` in *root* is at version *now*, was at *old*, and ``no`` is absent."""
    return {
        "exists, absent": Exists(f"{root}/no"),
        "at version, absent": AtVersion(f"{root}/no", now),
        "at version, changed": AtVersion(f"{root}/there", old),
        "create, present": Create(f"{root}/there", b"new"),
        "update, absent": Update(f"{root}/no", b"new"),
        "update at version, absent": Update(f"{root}/no", b"new", now),
        "update at version, changed": Update(f"{root}/there", b"new", old),
        "delete, absent": Delete(f"{root}/no"),
        "delete at version, absent": Delete(f"{root}/no", now),
        "delete at version, changed": Delete(f"{root}/there", old),
    }


def holding(root: str, now: str) -> dict[str, Part]:
    """Parts that hold in the same state."""
    return {
        "exists": Exists(f"{root}/there"),
        "at version": AtVersion(f"{root}/there", now),
        "update": Update(f"{root}/there", b"new"),
        "update at version": Update(f"{root}/there", b"new", now),
        "delete": Delete(f"{root}/there"),
        "delete at version": Delete(f"{root}/there", now),
    }


RACE_VALUES = (b"0", b"1", b"2", b"3")
"""The values written by the competitors of a race, a different value for each."""

MALFORMED_COMMITS: dict[str, tuple[list[Condition], list[Change]]] = {
    "nothing": ([], []),
    "no change": ([Exists("a")], []),
    "condition and change of one key": ([Exists("a")], [Update("a", b"")]),
    "two conditions on one key": ([Exists("a"), AtVersion("a", "1")], [Update("b", b"")]),
    "two changes of one key": ([], [Delete("a"), Create("a", b"")]),
    "empty segment": ([], [Create("x//y", b"")]),
    "slash first": ([], [Create("/x", b"")]),
    "slash last": ([], [Create("x/", b"")]),
    "dots": ([], [Create("x/../y", b"")]),
    "space": ([], [Create("x y", b"")]),
    "empty key": ([], [Create("", b"")]),
    "513 characters": ([], [Create("x" * 513, b"")]),
    "malformed condition": ([Exists("x y")], [Update("b", b"")]),
}


class CommitRules(Kit):
    """The effects of a commit, and the refusals."""

    @pytest.mark.parametrize("part", failing("", "", ""))
    def test_nothing_is_applied_where_one_part_fails(self, backend: CoordinationBackend, root: str, part: str) -> None:
        """A commit with a failing part, at any position, is refused by the part's key and changes nothing."""
        bad = failing(root, *self._there(backend, root))[part]
        before = backend.list(root)
        good: list[Change] = [Create(f"{root}/new", b""), Update(f"{root}/x", b"new"), Delete(f"{root}/y")]
        if isinstance(bad, Exists | AtVersion):
            outcome = backend.commit([Exists(f"{root}/z"), bad], good)
            assert refused(outcome) == bad.key
        else:
            for place in (0, 1, 3):
                outcome = backend.commit([Exists(f"{root}/z")], [*good[:place], bad, *good[place:]])
                assert refused(outcome) == bad.key
        assert backend.list(root) == before

    @pytest.mark.parametrize("part", holding("", ""))
    def test_all_is_applied_where_every_part_holds(self, backend: CoordinationBackend, root: str, part: str) -> None:
        """A commit with all parts holding is applied whole, and returns the versions shown by later reads."""
        now, _ = self._there(backend, root)
        good = holding(root, now)[part]
        conditions: list[Condition] = [Exists(f"{root}/z")]
        changes: list[Change] = [Create(f"{root}/new", b"new"), Update(f"{root}/x", b"new"), Delete(f"{root}/y")]
        if isinstance(good, Exists | AtVersion):
            conditions.append(good)
        else:
            changes.append(good)
        outcome = backend.commit(conditions, changes)
        assert isinstance(outcome, Committed)
        after = {entry.key: entry for entry in backend.list(root)}
        for change in changes:
            if isinstance(change, Delete):
                assert change.key not in after
            else:
                assert after[change.key].value == change.value
                assert after[change.key].version == outcome.versions[change.key]
        assert set(outcome.versions) == {change.key for change in changes if not isinstance(change, Delete)}

    def test_conditions_leave_their_keys_alone(self, backend: CoordinationBackend, root: str) -> None:
        """A key named only in a condition keeps the value and version."""
        now, _ = self._there(backend, root)
        before = backend.get(f"{root}/there")
        conditions: list[Condition] = [AtVersion(f"{root}/there", now), Exists(f"{root}/z")]
        assert isinstance(backend.commit(conditions, [Create(f"{root}/new", b"")]), Committed)
        assert backend.get(f"{root}/there") == before

    @pytest.mark.parametrize(("conditions", "changes"), MALFORMED_COMMITS.values(), ids=MALFORMED_COMMITS)
    def test_a_malformed_commit_is_a_value_error(
        self, backend: CoordinationBackend, conditions: list[Condition], changes: list[Change]
    ) -> None:
        """A malformed commit is ValueError: a bad key, a key named twice, nothing to change."""
        with pytest.raises(ValueError, match=r"."):
            backend.commit(conditions, changes)

    def test_one_commit_hangs_keys_on_one_lease(self, backend: CoordinationBackend, root: str) -> None:
        """Creating keys on two leases in the same commit is ValueError, and neither key is made."""
        first, second = backend.lease(self.ttl), backend.lease(self.ttl)
        with pytest.raises(ValueError, match="lease"):
            backend.commit([], [Create(f"{root}/a", b"", first), Create(f"{root}/b", b"", second)])
        assert backend.keys(root) == []

    def test_a_value_may_be_as_large_as_promised_and_no_larger(self, backend: CoordinationBackend, root: str) -> None:
        """A value of `largest_value` bytes is accepted and read back; a larger value is CommitTooLargeError."""
        largest = min(backend.guarantees.largest_value, backend.guarantees.largest_commit - 1000)
        value = bytes(range(250)) * (largest // 250 + 1)
        create(backend, f"{root}/a", value[:largest])
        entry = backend.get(f"{root}/a")
        assert entry is not None
        assert entry.value == value[:largest]
        with pytest.raises(CommitTooLargeError):
            backend.commit([], [Create(f"{root}/b", b"x" * (backend.guarantees.largest_value + 1))])
        assert backend.get(f"{root}/b") is None

    def test_a_commit_may_be_as_large_as_promised_and_no_larger(self, backend: CoordinationBackend, root: str) -> None:
        """A commit of `largest_commit` bytes by `commit_size` is accepted; a larger commit is CommitTooLargeError."""
        largest = backend.guarantees.largest_commit
        changes: list[Create] = []
        while commit_size([], changes).bytes < largest:
            room = largest - commit_size([], [*changes, Create(f"{root}/{len(changes):02}", b"")]).bytes
            if room < 0:
                break
            value = b"x" * min(room, backend.guarantees.largest_value)
            changes.append(Create(f"{root}/{len(changes):02}", value))
        assert largest - commit_size([], changes).bytes < 200
        more = [*changes, Create(f"{root}/more", b"x" * 200)]
        with pytest.raises(CommitTooLargeError):
            backend.commit([], more)
        assert backend.keys(root) == []
        assert isinstance(backend.commit([], changes), Committed)
        assert len(backend.keys(root)) == len(changes)

    def test_a_commit_may_have_as_many_operations_as_promised_and_no_more(
        self, backend: CoordinationBackend, root: str
    ) -> None:
        """Conditions and changes count together, up to `most_operations`; more are CommitTooLargeError."""
        most = min(backend.guarantees.most_operations, 1000)
        names = [f"{root}/{number}" for number in range(most)]
        assert isinstance(backend.commit([], [Create(name, b"") for name in names]), Committed)
        conditions = [Exists(name) for name in names[: most // 2]]
        changes = [Update(name, b"new") for name in names[most // 2 :]]
        assert isinstance(backend.commit(conditions, changes), Committed)
        if most == backend.guarantees.most_operations:
            with pytest.raises(CommitTooLargeError):
                backend.commit([*conditions, Exists(root)], changes)

    def test_of_two_creations_exactly_one_wins(
        self, backend: CoordinationBackend, other: CoordinationBackend, root: str
    ) -> None:
        """Of commits racing to create the same key, exactly one is applied; the rest are refused by this key."""
        for number in range(self.rounds):
            self._race([backend, other], [[Create(f"{root}/{number}", value)] for value in RACE_VALUES])

    def test_of_two_updates_at_one_version_exactly_one_wins(
        self, backend: CoordinationBackend, other: CoordinationBackend, root: str
    ) -> None:
        """Of commits racing to replace the same version, exactly one is applied; the rest are refused."""
        version = create(backend, f"{root}/a")
        for _ in range(self.rounds):
            version = self._race([backend, other], [[Update(f"{root}/a", value, version)] for value in RACE_VALUES])

    def test_of_two_commits_fenced_by_one_record_exactly_one_wins(
        self, backend: CoordinationBackend, other: CoordinationBackend, root: str
    ) -> None:
        """Commits that write different keys but replace the same version of a shared key exclude each other whole."""
        version = create(backend, f"{root}/fence")
        for number in range(self.rounds):
            attempts: list[list[Change]] = [
                [Create(f"{root}/{number}-{value.decode()}", b""), Update(f"{root}/fence", value, version)]
                for value in RACE_VALUES
            ]
            version = self._race([backend, other], attempts)
        backend.sync()
        assert len(backend.keys(root)) == self.rounds + 1

    def test_no_guarded_increment_is_lost(
        self, backend: CoordinationBackend, other: CoordinationBackend, root: str
    ) -> None:
        """A number read and replaced at the version read, by several clients at once, counts every success."""
        create(backend, f"{root}/a", b"0")

        def add(client: CoordinationBackend) -> int:
            added = 0
            while added < self.rounds:
                entry = client.get(f"{root}/a")
                if entry is None:  # The read lags: the key is not there yet.
                    continue
                value = str(int(entry.value) + 1).encode()
                added += isinstance(client.commit([], [Update(entry.key, value, entry.version)]), Committed)
            return added

        added = in_parallel([partial(add, client) for client in (backend, other, backend)])
        backend.sync()
        entry = backend.get(f"{root}/a")
        assert entry is not None
        assert int(entry.value) == sum(added) == 3 * self.rounds

    def _there(self, backend: CoordinationBackend, root: str) -> tuple[str, str]:
        """Make some keys; return the current and an earlier version of ``there``."""
        for name in ("there", "x", "y", "z"):
            create(backend, f"{root}/{name}", b"old")
        old = _entry(backend, f"{root}/there").version
        backend.commit([], [Update(f"{root}/there", b"now", old)])
        return _entry(backend, f"{root}/there").version, old

    def _race(self, clients: Sequence[CoordinationBackend], attempts: Sequence[Sequence[Change]]) -> str:
        """Commit all *attempts* at once, by turns through *clients*; return the version made by the only winner.

        The last change of each attempt updates or creates the contested key, with a different value in each.
        """
        outcomes = in_parallel(
            [partial(clients[number % len(clients)].commit, [], changes) for number, changes in enumerate(attempts)]
        )
        wins = [number for number, outcome in enumerate(outcomes) if isinstance(outcome, Committed)]
        assert len(wins) == 1, f"{len(wins)} of {len(attempts)} won"
        prize, won = attempts[wins[0]][-1], outcomes[wins[0]]
        assert isinstance(won, Committed)
        assert {refused(outcome) for outcome in outcomes if outcome is not won} == {prize.key}
        clients[0].sync()
        assert not isinstance(prize, Delete)
        assert _entry(clients[0], prize.key).value == prize.value
        return won.versions[prize.key]


def _entry(backend: CoordinationBackend, key: str) -> Entry:
    entry = backend.get(key)
    assert entry is not None
    return entry
