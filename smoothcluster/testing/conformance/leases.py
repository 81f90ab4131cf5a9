"""Rules of leases: the granted time, renewal, and the keys on a lease."""

from contextlib import closing

import pytest

from smoothcluster.backend import Change, Committed, CoordinationBackend, Create, Exists, Lease, Update
from smoothcluster.clock import SYSTEM_CLOCK
from smoothcluster.errors import LeaseLostError
from smoothcluster.testing.conformance.kit import Kit, Wakes, create, delete, gone


class LeaseRules(Kit):
    """The effects of granting, renewing and ending a lease."""

    def test_a_key_shows_the_lease_it_was_born_on(
        self, backend: CoordinationBackend, other: CoordinationBackend, root: str
    ) -> None:
        """To every reader, an entry shows the id of the lease of its creation; None for other keys."""
        lease = backend.lease(self.ttl)
        changes = [Create(f"{root}/on", b"", lease), Create(f"{root}/off", b""), Create(f"{root}/too", b"", lease)]
        assert isinstance(backend.commit([], changes), Committed)
        other.sync()
        assert [entry.lease for entry in other.list(root)] == [None, lease.id, lease.id]

    def test_no_two_leases_share_an_id(self, backend: CoordinationBackend, other: CoordinationBackend) -> None:
        """Every lease has a different id, also after others have ended."""
        ids: set[str] = set()
        for _ in range(3):
            leases = [backend.lease(self.ttl), other.lease(self.ttl)]
            ids.update(lease.id for lease in leases)
            for lease in leases:
                lease.revoke()
        assert len(ids) == 6

    def test_the_time_granted_is_within_the_guarantees(self, backend: CoordinationBackend) -> None:
        """A lease asked for too short or too long is granted the shortest or longest time, as `ttl` shows."""
        promised = backend.guarantees
        between = self.ttl + promised.ttl_step / 3
        for asked in (promised.shortest_ttl / 2, promised.shortest_ttl, self.ttl, between, promised.longest_ttl * 2):
            lease = backend.lease(max(asked, 0.05))
            assert promised.shortest_ttl <= lease.ttl <= promised.longest_ttl
            if promised.ttl_step:
                assert abs(lease.ttl / promised.ttl_step - round(lease.ttl / promised.ttl_step)) < 1e-6
            lease.revoke()

    def test_a_lease_that_is_not_renewed_runs_out_and_not_before_its_time(
        self, backend: CoordinationBackend, other: CoordinationBackend, root: str
    ) -> None:
        """A lease's keys are there for the whole granted time and gone soon after; watches wake for the end."""
        start = SYSTEM_CLOCK.monotonic()
        lease = backend.lease(max(backend.guarantees.shortest_ttl, 1.5))
        create(backend, f"{root}/a", b"", lease)
        self.pass_time(lease.ttl * 0.6)
        other.sync()
        seen = other.get(f"{root}/a")
        # Unless this machine stood still meanwhile: then the test proves nothing.
        assert seen is not None or SYSTEM_CLOCK.monotonic() - start >= lease.ttl
        wakes = Wakes()
        other.watch(f"{root}/a", wakes)
        if other.get(f"{root}/a") is not None:
            self.pass_time(lease.ttl * 0.5)
            wakes.since(0)
        gone(other, f"{root}/a")
        assert lease.renew() is False

    def test_a_renewed_lease_lives_on(self, backend: CoordinationBackend, root: str) -> None:
        """Each renewal, however many, restarts the full time: the keys outlive the time first granted."""
        renewed = SYSTEM_CLOCK.monotonic()
        lease = backend.lease(max(backend.guarantees.shortest_ttl, 1.5))
        create(backend, f"{root}/a", b"", lease)
        for _ in range(5):
            self.pass_time(lease.ttl * 0.3)
            before = SYSTEM_CLOCK.monotonic()
            alive = lease.renew()
            if SYSTEM_CLOCK.monotonic() - renewed >= lease.ttl:
                return  # This machine stood still meanwhile: the test proves nothing.
            assert alive
            renewed = before
        assert backend.get(f"{root}/a") is not None

    def test_revoking_ends_a_lease_at_once(
        self, backend: CoordinationBackend, other: CoordinationBackend, root: str
    ) -> None:
        """Revoking a lease deletes the keys of the lease before the call returns, and no other keys."""
        lease, stays = backend.lease(self.ttl), backend.lease(self.ttl)
        create(backend, f"{root}/a", b"", lease)
        create(backend, f"{root}/deep/b", b"", lease)
        create(backend, f"{root}/stays", b"", stays)
        create(backend, f"{root}/z")
        lease.revoke()
        for client in (backend, other):
            client.sync()
            assert client.keys(root) == [f"{root}/stays", f"{root}/z"]

    def test_a_lease_is_given_back_once(self, backend: CoordinationBackend, root: str) -> None:
        """Revoking again is harmless, even to keys made since under the same names. The lease cannot be renewed."""
        lease = backend.lease(self.ttl)
        create(backend, f"{root}/a", b"", lease)
        lease.revoke()
        assert lease.renew() is False
        again = backend.lease(self.ttl)
        create(backend, f"{root}/a", b"", again)
        lease.revoke()
        assert again.renew() is True
        assert backend.get(f"{root}/a") is not None

    def test_a_lost_lease_takes_its_keys_and_no_others(
        self, backend: CoordinationBackend, other: CoordinationBackend, root: str
    ) -> None:
        """A lease ended by the store takes all its keys, in any directory; keys without a lease stay."""
        lease = backend.lease(self.ttl)
        create(backend, f"{root}/a", b"", lease)
        create(backend, f"{root}/deep/b", b"", lease)
        create(backend, f"{root}/deep/c")
        self.expire(lease)
        gone(other, f"{root}/a")
        other.sync()
        assert other.keys(root) == [f"{root}/deep"]
        assert other.keys(f"{root}/deep") == [f"{root}/deep/c"]

    def test_a_lost_lease_never_comes_back(self, backend: CoordinationBackend, root: str) -> None:
        """After a lease ends, `renew` is always False, and creating a key on it is LeaseLostError, applying nothing."""
        create(backend, f"{root}/plain", b"old")
        lease = backend.lease(self.ttl)
        create(backend, f"{root}/a", b"", lease)
        self.expire(lease)
        gone(backend, f"{root}/a")
        for _ in range(2):
            assert lease.renew() is False
            with pytest.raises(LeaseLostError):
                backend.commit([], [Update(f"{root}/plain", b"new"), Create(f"{root}/a", b"", lease)])
        assert [entry.value for entry in backend.list(root)] == [b"old"]
        lease.revoke()

    def test_after_a_loss_a_new_lease_works(self, backend: CoordinationBackend, root: str) -> None:
        """After losing a lease, a client goes on with a new lease, under the old names."""
        lease = backend.lease(self.ttl)
        create(backend, f"{root}/a", b"1", lease)
        self.expire(lease)
        gone(backend, f"{root}/a")
        again = backend.lease(self.ttl)
        create(backend, f"{root}/a", b"2", again)
        assert again.renew() is True
        entry = backend.get(f"{root}/a")
        assert entry is not None
        assert (entry.value, entry.lease) == (b"2", again.id)

    def test_a_lost_lease_wakes_watchers(
        self, backend: CoordinationBackend, other: CoordinationBackend, root: str
    ) -> None:
        """When a lease ends, watches of the key and of its directory wake, those ignoring values, too."""
        lease = backend.lease(self.ttl)
        create(backend, f"{root}/a", b"", lease)
        wakes = [Wakes(), Wakes(), Wakes()]
        other.watch(f"{root}/a", wakes[0])
        other.watch(root, wakes[1])
        other.watch(root, wakes[2], values=False)
        other.sync()
        assert other.get(f"{root}/a") is not None
        self.expire(lease)
        for wake in wakes:
            wake.since(0)
        gone(other, f"{root}/a")

    def test_an_update_keeps_the_lease(
        self, backend: CoordinationBackend, other: CoordinationBackend, root: str
    ) -> None:
        """A key updated by any client stays on the lease of its creation, and is deleted with the lease."""
        lease = backend.lease(self.ttl)
        create(backend, f"{root}/a", b"1", lease)
        for client in (backend, other):
            assert isinstance(client.commit([], [Update(f"{root}/a", b"2")]), Committed)
            entry = client.get(f"{root}/a")
            assert entry is not None
            assert entry.lease == lease.id
        lease.revoke()
        gone(other, f"{root}/a")

    def test_anyone_may_delete_a_leased_key(
        self, backend: CoordinationBackend, other: CoordinationBackend, root: str
    ) -> None:
        """Another client can delete a key on a lease; the lease lives on, and the holder may make the key again."""
        lease = backend.lease(self.ttl)
        create(backend, f"{root}/a", b"", lease)
        delete(other, f"{root}/a")
        assert lease.renew() is True
        backend.sync()
        assert backend.get(f"{root}/a") is None
        create(backend, f"{root}/a", b"", lease)

    def test_a_key_made_again_goes_with_its_new_lease_only(
        self, backend: CoordinationBackend, other: CoordinationBackend, root: str
    ) -> None:
        """A name moved from a lease to another, or to none, is not deleted by the end of the first lease."""
        lease, heir = backend.lease(self.ttl), other.lease(self.ttl)
        for name in ("heir", "none"):
            create(backend, f"{root}/{name}", b"", lease)
            delete(backend, f"{root}/{name}")
        create(other, f"{root}/heir", b"", heir)
        create(other, f"{root}/none")
        lease.revoke()
        assert other.keys(root) == [f"{root}/heir", f"{root}/none"]
        heir.revoke()
        other.sync()
        assert other.keys(root) == [f"{root}/none"]

    def test_a_commit_may_mix_leased_and_other_keys(self, backend: CoordinationBackend, root: str) -> None:
        """One commit creates on a lease, creates on none, updates, deletes and checks, all or nothing."""
        lease = backend.lease(self.ttl)
        for name in ("checked", "updated", "deleted"):
            create(backend, f"{root}/{name}", b"old")
        delete(backend, f"{root}/deleted")
        changes: list[Change] = [
            Create(f"{root}/leased", b"", lease),
            Create(f"{root}/plain", b""),
            Update(f"{root}/updated", b"new"),
        ]
        assert isinstance(backend.commit([Exists(f"{root}/checked")], changes), Committed)
        lease.revoke()
        backend.sync()
        assert {entry.key: entry.value for entry in backend.list(root)} == {
            f"{root}/checked": b"old",
            f"{root}/plain": b"",
            f"{root}/updated": b"new",
        }

    def test_a_lease_without_renewals_is_silent_or_ended_for_a_new_client(self, root: str) -> None:
        """Although no client was there to move the store's lease clock: a single look finds every dead holder."""
        with closing(self.connect()) as client:
            lease = client.lease(max(client.guarantees.shortest_ttl, 0.5))
            create(client, f"{root}/a", b"", lease)
        self.pass_time(lease.ttl + 2.0)
        # A second look, because a busy machine may run the store late. Two looks move no lease clock far enough.
        assert self._is_silent_or_ended(lease, f"{root}/a") or self._is_silent_or_ended(lease, f"{root}/a", 3.0)

    def _is_silent_or_ended(self, lease: Lease, key: str, wait: float = 0.0) -> bool:
        """After *wait* seconds, have a new client look at *lease* and at *key* on the lease."""
        self.pass_time(wait)
        with closing(self.connect()) as client:
            return lease.id in client.silent_leases([lease.id]) or client.get(key) is None

    def test_a_renewed_lease_is_not_silent(
        self, backend: CoordinationBackend, other: CoordinationBackend, root: str
    ) -> None:
        """A lease renewed in time is not silent, even after the time first granted; nor is an ended lease."""
        ended = backend.lease(self.ttl)
        ended.revoke()
        assert other.silent_leases([]) == set()
        renewed = SYSTEM_CLOCK.monotonic()
        lease = backend.lease(max(backend.guarantees.shortest_ttl, 1.5))
        create(backend, f"{root}/a", b"", lease)
        for _ in range(3):
            self.pass_time(lease.ttl * 0.4)
            before = SYSTEM_CLOCK.monotonic()
            alive, silent = lease.renew(), other.silent_leases([ended.id, lease.id, "none"])
            if SYSTEM_CLOCK.monotonic() - renewed >= lease.ttl:
                return  # This machine stood still meanwhile: the test proves nothing.
            assert alive
            assert silent == set()
            renewed = before

    def test_leases_of_a_closed_client_run_out(self, other: CoordinationBackend, root: str) -> None:
        """A client that closes without revoking leaves nothing behind for longer than the lease."""
        client = self.connect()
        lease = client.lease(max(client.guarantees.shortest_ttl, 1.5))
        create(client, f"{root}/a", b"", lease)
        client.close()
        client.close()
        other.sync()
        self.pass_time(lease.ttl)
        gone(other, f"{root}/a")
