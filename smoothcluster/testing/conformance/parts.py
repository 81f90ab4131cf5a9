"""Rules of the parts of a store, in which groups lie: one part for all groups, or a part for each group."""

import pytest

from smoothcluster.backend import CoordinationBackend, Create, Entry
from smoothcluster.errors import BackendError
from smoothcluster.testing.conformance.kit import Kit, Wakes, create, in_parallel


class PartRules(Kit):
    """Rules of the result of `CoordinationBackend.for_group`."""

    def test_a_group_has_one_part_whomever_one_asks(self, backend: CoordinationBackend, root: str) -> None:
        """`for_group` of the store or of any part, also in parallel, always returns the same object for a group."""
        parts = in_parallel([lambda: backend.for_group(root)] * 8)
        part = parts[0]
        for each in (*parts, part.for_group(root), part.for_group(f"{root}-2").for_group(root)):
            assert each is part
        assert (part.url, part.guarantees) == (backend.url, backend.guarantees)

    def test_clients_meet_in_a_groups_part(
        self, backend: CoordinationBackend, other: CoordinationBackend, root: str
    ) -> None:
        """In a group's part, clients see the writes of others, with leases, and watches wake for them."""
        mine, theirs = backend.for_group(root), other.for_group(root)
        wakes = Wakes()
        theirs.watch(root, wakes)
        lease = mine.lease(self.ttl)
        version = create(mine, f"{root}/a", b"1", lease)
        wakes.since(0)
        theirs.sync()
        (entry,) = theirs.list(root)
        assert entry == Entry(f"{root}/a", b"1", version, entry.created, lease.id)
        lease.revoke()
        theirs.sync()
        assert theirs.keys(root) == []

    def test_a_lease_is_of_use_in_its_part_alone(self, backend: CoordinationBackend, root: str) -> None:
        """Where groups have separate parts, a key on a lease of another part is ValueError, and nothing is made."""
        part, apart = backend.for_group(root), backend.for_group(f"{root}-2")
        lease = part.lease(self.ttl)
        if apart is part:
            create(apart, f"{root}/a", b"", lease)
            return
        for lender, borrower in ((part, apart), (part, backend), (apart, part)):
            if lender is not borrower:
                with pytest.raises(ValueError, match="lease"):
                    borrower.commit([], [Create(f"{root}/a", b"", lender.lease(self.ttl))])
                assert borrower.get(f"{root}/a") is None

    @pytest.mark.parametrize("whole", [True, False], ids=["the whole", "a part"])
    def test_closing_any_closes_all(self, root: str, *, whole: bool) -> None:
        """Closing any part closes the whole client: later, no call through any part succeeds."""
        client = self.connect()
        part, apart = client.for_group(root), client.for_group(f"{root}-2")
        for each in (client, part, apart):
            each.watch(root, Wakes())
            each.get(f"{root}/a")
        (client if whole else part).close()
        for each in (client, part, apart, client.for_group(root), client.for_group(f"{root}-3")):
            with pytest.raises(BackendError):
                each.get(f"{root}/a")
            with pytest.raises(BackendError):
                each.lease(self.ttl)
        part.close()
