"""Rules of failures: lost answers, late commits, replaced owners."""

import pytest

from smoothcluster.backend import (
    AtVersion,
    Change,
    Committed,
    CoordinationBackend,
    Create,
    Delete,
    Exists,
    Refused,
    Update,
)
from smoothcluster.errors import LeaseLostError, OutcomeUnknownError
from smoothcluster.testing.conformance.kit import Kit, create, delete, gone, refused
from smoothcluster.testing.faults import Faulty


class OutcomeRules(Kit):
    """The guarantees under failures."""

    def test_a_lease_lost_while_a_commit_is_on_its_way(
        self, backend: CoordinationBackend, other: CoordinationBackend, root: str
    ) -> None:
        """A commit arriving after its lease has ended is LeaseLostError, and nothing is applied."""
        create(other, f"{root}/plain", b"old")
        late = Faulty(backend)
        lease = backend.lease(self.ttl)
        create(late, f"{root}/mine", b"", lease)
        late.hold()
        with pytest.raises(OutcomeUnknownError):
            late.commit([], [Update(f"{root}/plain", b"late"), Create(f"{root}/new", b"", lease)])
        self.expire(lease)
        gone(other, f"{root}/mine")
        assert [type(outcome) for outcome in late.deliver()] == [LeaseLostError]
        backend.sync()
        assert [entry.value for entry in backend.list(root)] == [b"old"]

    def test_a_member_that_expired_cannot_commit_on_its_own_record(
        self, backend: CoordinationBackend, other: CoordinationBackend, root: str
    ) -> None:
        """A commit without a lease, conditioned on a key of an ended lease, is refused."""
        lease = backend.lease(self.ttl)
        create(backend, f"{root}/me", b"", lease)
        version = create(other, f"{root}/seat", b"free")
        self.expire(lease)
        gone(other, f"{root}/me")
        outcome = backend.commit([Exists(f"{root}/me")], [Update(f"{root}/seat", b"me", version)])
        assert refused(outcome) == f"{root}/me"

    def test_a_replaced_owner_is_refused(
        self, backend: CoordinationBackend, other: CoordinationBackend, root: str
    ) -> None:
        """A zombie's write at the last version seen is refused, for ever, after another client replaced the version."""
        seen = create(backend, f"{root}/shard", b"backend")
        claim = other.commit([], [Update(f"{root}/shard", b"other", seen)])
        assert isinstance(claim, Committed)
        for _ in range(3):
            progress: list[Change] = [Update(f"{root}/shard", b"zombie", seen), Create(f"{root}/result", b"")]
            assert refused(backend.commit([], progress)) == f"{root}/shard"
            outcome = other.commit([], [Update(f"{root}/shard", b"other", claim.versions[f"{root}/shard"])])
            assert isinstance(outcome, Committed)
            claim = outcome
        assert other.get(f"{root}/result") is None

    def test_a_replaced_owners_late_commit_is_refused(
        self, backend: CoordinationBackend, other: CoordinationBackend, root: str
    ) -> None:
        """A commit sent by the owner, but arriving after another client's claim, is refused whole."""
        late = Faulty(backend)
        seen = create(late, f"{root}/shard", b"mine")
        late.hold()
        with pytest.raises(OutcomeUnknownError):
            late.commit([], [Update(f"{root}/shard", b"progress", seen), Create(f"{root}/result", b"")])
        assert isinstance(other.commit([], [Update(f"{root}/shard", b"theirs", seen)]), Committed)
        assert late.deliver() == [Refused(f"{root}/shard")]
        assert other.get(f"{root}/result") is None

    def test_a_key_made_again_is_told_from_the_old_one(
        self, backend: CoordinationBackend, other: CoordinationBackend, root: str
    ) -> None:
        """A key made again has a larger `created`; with `unique_versions`, the old versions are refused."""
        old = create(backend, f"{root}/a", b"first")
        before = backend.get(f"{root}/a")
        delete(other, f"{root}/a")
        create(other, f"{root}/a", b"second")
        backend.sync()
        after = backend.get(f"{root}/a")
        assert before is not None
        assert after is not None
        assert after.created > before.created
        if backend.guarantees.unique_versions:
            assert after.version != old
            assert refused(backend.commit([], [Update(f"{root}/a", b"zombie", old)])) == f"{root}/a"
            assert refused(backend.commit([], [Delete(f"{root}/a", old)])) == f"{root}/a"
            outcome = backend.commit([AtVersion(f"{root}/a", old)], [Create(f"{root}/b", b"")])
            assert refused(outcome) == f"{root}/a"

    def test_a_lost_answer_is_settled_by_reading(self, backend: CoordinationBackend, root: str) -> None:
        """An applied commit with a lost answer is OutcomeUnknownError; after a `sync`, reads show the commit."""
        version = create(backend, f"{root}/a", b"old")
        client = self.dropping_next_answer(backend)
        with pytest.raises(OutcomeUnknownError):
            client.commit([], [Update(f"{root}/a", b"my id", version), Create(f"{root}/b", b"")])
        client.sync()
        assert [entry.value for entry in client.list(root)] == [b"my id", b""]

    def test_an_identical_retry_after_a_lost_answer_is_refused(self, backend: CoordinationBackend, root: str) -> None:
        """An identical retry of such a commit, at the same version, applies nothing twice: the retry is refused."""
        version = create(backend, f"{root}/a", b"old")
        changes: list[Change] = [Update(f"{root}/a", b"my id", version), Create(f"{root}/b", b"")]
        client = self.dropping_next_answer(backend)
        with pytest.raises(OutcomeUnknownError):
            client.commit([], changes)
        client.sync()
        before = client.list(root)
        assert refused(client.commit([], changes)) in {f"{root}/a", f"{root}/b"}
        assert client.list(root) == before

    def test_a_lost_answer_to_a_lease_commit(self, backend: CoordinationBackend, root: str) -> None:
        """The same holds for keys created on a lease: each exists, once, and is deleted with the lease."""
        client = self.dropping_next_answer(backend)
        lease = client.lease(self.ttl)
        with pytest.raises(OutcomeUnknownError):
            client.commit([], [Create(f"{root}/a", b"me", lease)])
        client.sync()
        entry = client.get(f"{root}/a")
        assert entry is not None
        assert entry.lease == lease.id
        assert refused(client.commit([], [Create(f"{root}/a", b"me", lease)])) == f"{root}/a"
        lease.revoke()
        gone(client, f"{root}/a")
