"""Tools for authors of backends: the contract as tests, and the parts of these tests.

Subclass `BackendConformance` in a test file to try a backend against every rule, and `backend_machine` to try the
backend with random moves. These need the extra ``smoothcluster[testing]``, and are loaded on first use: the clock,
the faults and the simulator do without pytest.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from smoothcluster.testing.clock import HeldClock, eventually
from smoothcluster.testing.faults import Faulty
from smoothcluster.testing.lagging import Lagging

if TYPE_CHECKING:
    from smoothcluster.testing.conformance.suite import Ability, BackendConformance
    from smoothcluster.testing.stateful import backend_machine

__all__ = ["Ability", "BackendConformance", "Faulty", "HeldClock", "Lagging", "backend_machine", "eventually"]

_RULE_MODULES = ("kit", "keys", "commits", "outcomes", "leases", "watches", "connection", "locks", "parts")


if not TYPE_CHECKING:  # Else no type checker would notice a misspelt name.

    def __getattr__(name: str) -> object:
        if name in ("Ability", "BackendConformance"):
            import pytest

            pytest.register_assert_rewrite(*(f"{__name__}.conformance.{rules}" for rules in _RULE_MODULES))
            return getattr(import_module(f"{__name__}.conformance.suite"), name)
        if name == "backend_machine":
            return import_module(f"{__name__}.stateful").backend_machine
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
