"""Rules of the parts of a store in which groups lie: of one place, or of as many as there are groups."""

import pytest

from smoothcluster.backend import CoordinationBackend, Create, Entry
from smoothcluster.errors import BackendError
from smoothcluster.testing.conformance.kit import Kit, Wakes, create, in_parallel


class PartRules(Kit):
    """What `CoordinationBackend.for_group` gives."""

    def test_a_group_has_one_part_whomever_one_asks(self, backend: CoordinationBackend, root: str) -> None:
        """Asked for by many at once, of the store or of any part of it, a group's part is one and the same object."""
        parts = in_parallel([lambda: backend.for_group(root)] * 8)
        part = parts[0]
        for each in (*parts, part.for_group(root), part.for_group(f"{root}-2").for_group(root)):
            assert each is part
        assert (part.url, part.guarantees) == (backend.url, backend.guarantees)

    def test_clients_meet_in_a_groups_part(
        self, backend: CoordinationBackend, other: CoordinationBackend, root: str
    ) -> None:
        """What one writes there another sees, with its lease, and is woken for."""
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
        """Where groups lie apart, a key cannot hang on a lease of another part: ValueError, and nothing is made."""
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
        """One client has one end, and no part of it is had after that."""
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
