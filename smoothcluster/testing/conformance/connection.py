"""Rules for when the store is away and comes back. They need the abilities to make it so."""

from collections.abc import Callable

import pytest

from smoothcluster.backend import Committed, CoordinationBackend, Create, Refused, Update
from smoothcluster.errors import BackendError, CommitTooLargeError, OutcomeUnknownError, UnavailableError
from smoothcluster.testing.clock import eventually
from smoothcluster.testing.conformance.kit import Ability, Kit, Wakes, create, gone


class ConnectionRules(Kit):
    """What an outage does, and what it must not do."""

    def test_a_closed_client_answers_with_our_errors(self, root: str) -> None:
        """After `close`, which may be repeated, every call raises one of our errors."""
        client = self.connect()
        lease = client.lease(self.ttl)
        create(client, f"{root}/a", b"", lease)
        client.close()
        client.close()
        for call in (
            lambda: client.get(f"{root}/a"),
            lambda: client.keys(root),
            lambda: client.commit([], [Create(f"{root}/b", b"")]),
            lambda: client.lease(self.ttl),
        ):
            with pytest.raises(BackendError):
                call()

    def test_cut_off_every_call_raises_our_errors(self, backend: CoordinationBackend, root: str) -> None:
        """Reading is UnavailableError; what changes things is that or OutcomeUnknownError; nothing hangs."""
        self.need(Ability.CUT)
        lease = backend.lease(self.ttl)
        create(backend, f"{root}/a", b"", lease)
        self.cut(backend)
        with pytest.raises(UnavailableError):
            backend.get(f"{root}/a")
        with pytest.raises(UnavailableError):
            backend.keys(root)
        for act in (
            lambda: backend.commit([], [Update(f"{root}/a", b"")]),
            lambda: backend.commit([], [Create(f"{root}/b", b"", lease)]),
            lease.renew,
            lease.revoke,
            lambda: backend.lease(self.ttl),
        ):
            with pytest.raises((UnavailableError, OutcomeUnknownError)):
                act()
        self.mend(backend)

    def test_too_large_is_measured_before_sending(self, backend: CoordinationBackend, root: str) -> None:
        """A commit that exceeds the guarantees is CommitTooLargeError even while the store is away."""
        self.need(Ability.CUT)
        self.cut(backend)
        with pytest.raises(CommitTooLargeError):
            backend.commit([], [Create(f"{root}/a", b"x" * (backend.guarantees.largest_value + 1))])
        self.mend(backend)

    def test_after_an_outage_the_same_client_works(self, backend: CoordinationBackend, root: str) -> None:
        """A client cut off for a while reads, commits, and gets leases again, with nothing done to it."""
        self.need(Ability.CUT)
        create(backend, f"{root}/a", b"1")
        self.cut(backend)
        with pytest.raises(UnavailableError):
            backend.get(f"{root}/a")
        self.mend(backend)
        self._answers(backend)
        assert isinstance(backend.commit([], [Update(f"{root}/a", b"2")]), Committed)
        assert backend.lease(self.ttl).renew() is True

    def test_a_lease_outlives_an_outage_shorter_than_itself(
        self, backend: CoordinationBackend, other: CoordinationBackend, root: str
    ) -> None:
        """Cut off for less than the time granted, the lease is still there and can be renewed, and so are its keys."""
        self.need(Ability.CUT)
        lease = backend.lease(self.ttl)
        create(backend, f"{root}/a", b"", lease)
        self.cut(backend)
        with pytest.raises((UnavailableError, OutcomeUnknownError)):
            lease.renew()
        self.mend(backend)
        assert self._eventually_renewed(lease.renew) is True
        other.sync()
        assert other.get(f"{root}/a") is not None
        create(backend, f"{root}/b", b"", lease)

    def test_a_lease_lost_during_an_outage_is_known_to_be(
        self, backend: CoordinationBackend, other: CoordinationBackend, root: str
    ) -> None:
        """After an outage in which the store ended the lease, renewing it is False, not an error for ever."""
        self.need(Ability.CUT)
        lease = backend.lease(self.ttl)
        create(backend, f"{root}/a", b"", lease)
        self.cut(backend)
        self.expire(lease)
        gone(other, f"{root}/a")
        self.mend(backend)
        assert self._eventually_renewed(lease.renew) is False

    @pytest.mark.parametrize("values", [True, False], ids=["values", "no values"])
    def test_a_change_during_an_outage_wakes_after_it(
        self, backend: CoordinationBackend, other: CoordinationBackend, root: str, *, values: bool
    ) -> None:
        """A watch that was cut off wakes on return for what it missed, a changed value too, and for what follows."""
        self.need(Ability.CUT)
        create(other, f"{root}/a", b"old")
        backend.sync()
        wakes = Wakes()
        backend.watch(root, wakes, values=values)
        for number in range(2):
            before = wakes.count
            self.cut(backend)
            change = Update(f"{root}/a", b"new") if values else Create(f"{root}/{number}", b"")
            assert isinstance(other.commit([], [change]), Committed)
            self.mend(backend)
            wakes.since(before)
            self._answers(backend)
        backend.sync()
        before = wakes.count
        create(other, f"{root}/after")
        wakes.since(before)

    def test_reads_do_not_go_back_over_an_outage(
        self, backend: CoordinationBackend, other: CoordinationBackend, root: str
    ) -> None:
        """What a client has seen before an outage it still sees after it, wherever it is connected then."""
        self.need(Ability.CUT)
        create(other, f"{root}/a")
        for number in range(3):
            other.commit([], [Update(f"{root}/a", str(number).encode())])
            backend.sync()
            seen = backend.get(f"{root}/a")
            self.cut(backend)
            self.mend(backend)
            self._answers(backend)
            assert backend.get(f"{root}/a") == seen

    def test_what_was_acknowledged_survives_a_restart(self, backend: CoordinationBackend, root: str) -> None:
        """A store that promises to survive a failover has every acknowledged commit after its restart."""
        self.need(Ability.RESTART)
        versions = [create(backend, f"{root}/{number}", b"kept") for number in range(10)]
        self.restart_store()
        self._answers(backend)
        if backend.guarantees.survives_failover:
            backend.sync()
            assert [entry.version for entry in backend.list(root)] == versions

    def test_a_watch_survives_a_restart(
        self, backend: CoordinationBackend, other: CoordinationBackend, root: str
    ) -> None:
        """A watch armed before the store restarts wakes for a value changed after it."""
        self.need(Ability.RESTART)
        create(other, f"{root}/a", b"old")
        wakes = Wakes()
        backend.watch(root, wakes)
        self.restart_store()
        self._answers(backend)
        self._answers(other)
        backend.sync()
        before = wakes.count
        outcome = other.commit([], [Update(f"{root}/a", b"new")])
        if isinstance(outcome, Refused):  # The store forgot it, and may: it does not promise to survive.
            assert not other.guarantees.survives_failover
            create(other, f"{root}/a", b"new")
        wakes.since(before)

    def _answers(self, backend: CoordinationBackend) -> None:
        """Wait until *backend* reaches the store."""

        def reached() -> bool:
            try:
                backend.sync()
                backend.get("conformance-none")
            except (UnavailableError, OutcomeUnknownError):
                return False
            return True

        eventually(reached)

    def _eventually_renewed(self, renew: Callable[[], bool]) -> bool:
        """What renewing comes to once the store can be asked."""

        def answer() -> list[bool]:
            try:
                return [renew()]
            except (UnavailableError, OutcomeUnknownError):
                return []

        return eventually(answer)[0]
