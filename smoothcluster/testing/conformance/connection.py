"""Rules of outages and restarts of the store. Most need abilities of the test class."""

from collections.abc import Callable

import pytest

from smoothcluster.backend import Committed, CoordinationBackend, Create, Refused, Update
from smoothcluster.errors import BackendError, CommitTooLargeError, OutcomeUnknownError, UnavailableError
from smoothcluster.testing.clock import eventually
from smoothcluster.testing.conformance.kit import Ability, Kit, Wakes, create, gone


class ConnectionRules(Kit):
    """The effects of an outage, and the effects forbidden to an outage."""

    def test_a_store_says_how_full_it_is_or_does_not(self, backend: CoordinationBackend) -> None:
        """A number of bytes in use, below a number of bytes; None if the store does not tell."""
        usage = backend.usage()
        assert usage is None or 0 < usage.used <= usage.limit
        assert usage is None or usage.what

    def test_a_closed_client_answers_with_our_errors(self, root: str) -> None:
        """After `close`, which may be repeated, every call raises an error of smoothcluster."""
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
        """Reading is UnavailableError; changing is UnavailableError or OutcomeUnknownError; no call hangs."""
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
        """A commit above the guarantees is CommitTooLargeError even while the store is unreachable."""
        self.need(Ability.CUT)
        self.cut(backend)
        with pytest.raises(CommitTooLargeError):
            backend.commit([], [Create(f"{root}/a", b"x" * (backend.guarantees.largest_value + 1))])
        self.mend(backend)

    def test_after_an_outage_the_same_client_works(self, backend: CoordinationBackend, root: str) -> None:
        """A client cut off for a while reads, commits, and gets leases again, with no call to restore the client."""
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
        """A lease survives an outage shorter than its granted time: it can be renewed, and its keys are there."""
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
        """If the store ended the lease during an outage, renewing returns False, not an error for ever."""
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
        """After an outage a watch wakes for missed changes, changed values too, and then for later changes."""
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
        """After an outage a client still sees everything seen before, whichever server the client is connected to."""
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
        """With `survives_failover`, the store has every acknowledged commit after a restart."""
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
        """A watch armed before a restart of the store wakes for a value changed after the restart."""
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
        if isinstance(outcome, Refused):  # The store lost the key, and may: this store does not promise to survive.
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
        """Renew until the store answers; return the answer."""

        def answer() -> list[bool]:
            try:
                return [renew()]
            except (UnavailableError, OutcomeUnknownError):
                return []

        return eventually(answer)[0]
