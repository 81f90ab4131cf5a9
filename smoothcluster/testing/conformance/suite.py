"""The contract as tests: every rule of `smoothcluster.backend`, for any backend.

    class TestMyBackend(BackendConformance):
        abilities = frozenset({Ability.CUT})

        def connect(self) -> CoordinationBackend: ...      # a new client of the one store
        def expire(self, lease: Lease) -> None: ...        # end it, or wait until it has run out
        def cut(self, backend) / mend(self, backend): ...  # for Ability.CUT

A rule is skipped if the rule needs more than the required hooks and the class does not declare the `Ability`; no
other rule is skipped. `smoothcluster.testing.conformance.kit` describes each hook.
"""

from smoothcluster.testing.conformance.commits import CommitRules
from smoothcluster.testing.conformance.connection import ConnectionRules
from smoothcluster.testing.conformance.keys import KeyRules
from smoothcluster.testing.conformance.kit import Ability
from smoothcluster.testing.conformance.leases import LeaseRules
from smoothcluster.testing.conformance.lifetime import LifetimeRules
from smoothcluster.testing.conformance.locks import LockRules
from smoothcluster.testing.conformance.outcomes import OutcomeRules
from smoothcluster.testing.conformance.parts import PartRules
from smoothcluster.testing.conformance.watches import WatchRules

__all__ = ["Ability", "BackendConformance"]


class BackendConformance(
    OutcomeRules, CommitRules, LeaseRules, WatchRules, KeyRules, LockRules, PartRules, ConnectionRules, LifetimeRules
):
    """Subclass in a test file, provide `connect` and `expire`, and declare the further abilities of the store."""
