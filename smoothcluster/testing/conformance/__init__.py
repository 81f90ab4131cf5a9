"""The conformance kit: every rule of `smoothcluster.backend` as a test, for any backend.

The author of a backend subclasses `BackendConformance` and gives a fixture with a server. The class inherits one module
of rules for each part of the contract::

    kit       the hooks: make a client, cut it off, restart the server; and which of them the backend has (Ability)
      |
      +-- keys, commits, outcomes   key-value and transactions: versions, conditions, answers that are lost
      +-- leases                    grants, renewals, expiry, keys on leases
      +-- watches                   no missed last change, wake-ups in time
      +-- connection                servers that stop, pause or come back
      +-- lifetime, forks           close tells every waiting thread; forked children
      +-- locks, parts              the recipes on top, and for_group
      |
    suite     all rules together: BackendConformance

Invariants: a rule asks only what the contract promises, so a backend with weaker guarantees passes by declaring them
(`Guarantees`). A rule that needs an ability which the backend lacks is skipped by name, never silently.

On failure: the name of the test is the broken rule, and its docstring is the reason for the rule.

Begin reading with `kit`, then `commits` and `watches`.
"""

import pytest

_RULE_MODULES = ("kit", "keys", "commits", "outcomes", "leases", "watches", "connection", "locks", "parts")

# Here, before any of the modules is imported, whichever a test file names first.
pytest.register_assert_rewrite(*(f"{__name__}.{rules}" for rules in _RULE_MODULES))
