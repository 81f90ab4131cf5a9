"""Tools to test backends, crawlers and the promises: the contract as tests, faults, a held clock, and a simulator.

=================== ==================================================================================================
`conformance`       every rule of `smoothcluster.backend` as a test: subclass `BackendConformance`
`sink_conformance`  every rule of `smoothcluster.sinks` as a test: subclass `SinkConformance`
`stateful`          random moves against a model of the contract: `backend_machine`
`faults`            `Faulty`, a backend that refuses calls, drops answers or delivers them late
`lagging`           `Lagging`, a backend whose reads are behind, as with several servers
`context`           `task_context`, which a unit test passes to a handler
`clock`             `HeldClock`, which only a test moves, and `eventually`, which waits for a condition
`simulate`          the logic of whole groups in virtual time, with kills, pauses and partitions
=================== ==================================================================================================

The layers of proof, from the fastest to the most real::

    a part by hand (HeldClock, Faulty) --> the simulator --> real processes on a real store

Invariants: no tool sleeps to wait. A wait ends with the condition, or fails after a generous deadline, so a slow
machine makes a test slower and never red.

On failure: a broken rule of the contract names the rule. A broken promise in the simulator names the promise and prints
the seed, and the same seed plays the same schedule again.

`BackendConformance`, `SinkConformance`, `backend_machine` and the simulator need the extra ``smoothcluster[testing]``
and are imported at the first use: the clock, the context and the faults do without the extra.

Begin reading with `faults.Faulty`, then `conformance.suite`, then the package `simulate`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from smoothcluster.testing.clock import HeldClock, eventually
from smoothcluster.testing.context import task_context
from smoothcluster.testing.extra import needs_extra
from smoothcluster.testing.faults import Faulty
from smoothcluster.testing.lagging import Lagging

if TYPE_CHECKING:
    from smoothcluster.testing.conformance.suite import Ability, BackendConformance
    from smoothcluster.testing.sink_conformance.suite import SinkAbility, SinkConformance
    from smoothcluster.testing.stateful import backend_machine

__all__ = [
    "Ability",
    "BackendConformance",
    "Faulty",
    "HeldClock",
    "Lagging",
    "SinkAbility",
    "SinkConformance",
    "backend_machine",
    "eventually",
    "task_context",
]

if not TYPE_CHECKING:  # Else no type checker would notice a misspelt name.

    def __getattr__(name: str) -> object:
        with needs_extra():
            if name in ("Ability", "BackendConformance"):
                return getattr(import_module(f"{__name__}.conformance.suite"), name)
            if name in ("SinkAbility", "SinkConformance"):
                return getattr(import_module(f"{__name__}.sink_conformance.suite"), name)
            if name == "backend_machine":
                return import_module(f"{__name__}.stateful").backend_machine
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
