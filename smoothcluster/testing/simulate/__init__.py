"""The simulator: the real logic of several members in one process, on virtual time, by a seed.

    python -m smoothcluster.testing.simulate --members 5 --schedules 2000 --faults kill,pause,partition

Members run the very code that they run in production, above the store's contract and below
their handlers: joining, election, handover, progress, leases, retries. What is simulated is
the store (`smoothcluster.memory`), the network, time, and the handlers. A scheduler may let
anybody else run at every store operation. A record that reads the store's history on its own
checks the promises P1 to P4 after every step, and P7 whenever the faults have stopped. Some
schedules are a long storm of everything, others short squalls of little, or gales that few members
with many shards have to stand, between silences.
"""

from smoothcluster.testing.simulate.faults import FAULTS
from smoothcluster.testing.simulate.invariants import Violation
from smoothcluster.testing.simulate.simulation import Scenario, World, play

__all__ = ["FAULTS", "Scenario", "Violation", "World", "play"]
