"""The simulator: the real logic of several members in one process, on virtual time, by a seed.

    python -m smoothcluster.testing.simulate --members 5 --schedules 2000 --faults kill,pause,partition

Members run the same code as in production, above the store's contract and below their handlers: joining, election,
handover, progress, leases, retries. The simulation replaces the store (by `smoothcluster.memory`), the network, time,
and the handlers. At every store operation, the scheduler may run any other process. An independent record of the
store's history checks the promises P1 to P4 after every step, and P7 whenever the faults have stopped. Some schedules
are a long storm of everything. Others are short squalls of little, or gales for few members with many shards, with
silences in between.
"""

from smoothcluster.testing.simulate.faults import FAULTS
from smoothcluster.testing.simulate.invariants import Violation
from smoothcluster.testing.simulate.simulation import Scenario, World, play

__all__ = ["FAULTS", "Scenario", "Violation", "World", "play"]
