"""The conformance kit for results sinks: every rule of `smoothcluster.sinks.protocol.ResultSink` as a test.

The author of a sink subclasses `SinkConformance` and names a place by URL. The class inherits the rules::

    kit       the hooks: the URL of a fresh place, and what a test may do to the place (SinkAbility)
      |
      +-- writing   what is written is read; repeats, zombies, late writes, rollbacks of the store; deleting; marks
      +-- failing   the place is away, or refuses a value for good; writers that are killed at each step
    suite     all rules together: SinkConformance
    victim    the process whose children are killed in the middle of a write

Invariants: a rule that needs an ability which the class does not declare is skipped by name. The rule about killed
writers checks that enough writers were killed, so the rule cannot pass without a kill.

On failure: the name of the test is the broken rule, and its docstring is the reason for the rule.

Begin reading with `kit`, then `writing`.
"""

import pytest

_RULE_MODULES = ("kit", "writing", "failing")

# Here, before any of the modules is imported, whichever a test file names first.
pytest.register_assert_rewrite(*(f"{__name__}.{rules}" for rules in _RULE_MODULES))
