"""The simulator: the real logic of several members in one process, on virtual time, by a seed.

    python -m smoothcluster.testing.simulate --members 5 --schedules 2000 --faults kill,pause,partition

Members run the same code as in production, above the store's contract and below their handlers: joining, election,
handover, progress, leases, retries. The simulation replaces the store (by `smoothcluster.memory`), the network, time,
and the handlers::

    scenario: what this schedule plays   faults: kills, pauses, partitions, lost answers, a store that forgets
               |                                       |
               v                                       v
    simulation --> processes (members, clients) --> network --> the store in memory
               |                                                   |
          scheduler: one thread, virtual time                      v
                                       invariants: an independent record of every commit

At every store operation, the scheduler may run any other process. The independent record of the store's history checks
the promises P1 to P4 after every step, and P7 whenever the faults have stopped; `adoption_invariants` checks P6. Some
schedules are a long storm of everything. Others are short squalls of little, or gales for few members with many shards,
with silences in between.

Invariants: a schedule depends on its seed alone, so the same seed finds the same violation. The record never asks the
code under test whether a promise holds.

On failure: the violation names the promise, and the output has the seed and the trace of the last events. Planted bugs
(`tests/core/planted_bugs.py`) show that the simulator finds what breaks a promise. No member searches for tasks now and
then (`smoothcluster.member.task_search`), except where wake-ups get lost on purpose: a search would hide mistakes.

Begin reading with `simulation`, then `scenario` and `invariants`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from smoothcluster.testing.extra import needs_extra

if TYPE_CHECKING:
    from smoothcluster.testing.simulate.faults import FAULTS
    from smoothcluster.testing.simulate.invariants import Violation
    from smoothcluster.testing.simulate.simulation import Scenario, World, play
else:

    def __getattr__(name: str) -> object:
        module = _HOME_MODULES.get(name)
        if module is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        with needs_extra():
            return getattr(import_module(f"{__name__}.{module}"), name)


_HOME_MODULES = {
    "FAULTS": "faults", "Scenario": "simulation", "Violation": "invariants", "World": "simulation",
    "play": "simulation",
}  # fmt: skip
"""The modules are imported at the first use: without the extra, the command must be able to say what it needs."""

__all__ = ["FAULTS", "Scenario", "Violation", "World", "play"]
