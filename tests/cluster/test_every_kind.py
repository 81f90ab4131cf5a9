"""No backend is forgotten."""

import json
import subprocess
import sys

import pytest
from cluster.group import child_environment
from cluster.stores import KINDS, installed

from smoothcluster.cli.doctor import VERDICT_HELD, VERDICT_WEAKER


def test_whole_groups_are_tried_on_every_backend() -> None:
    """Each registered backend has a kind of store here."""
    assert installed() <= {kind.scheme for kind in KINDS}


@pytest.mark.quick
def test_the_doctor_finds_no_promise_broken(store: str) -> None:
    """On every store that is shipped each promise is held, or what weakens it is told."""
    done = subprocess.run(
        [sys.executable, "-m", "smoothcluster", "doctor", store, "--json"],
        env=child_environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    verdicts = {promise["verdict"] for promise in found["promises"]}
    assert verdicts <= ({VERDICT_HELD} if found["guarantees"]["survives_failover"] else {VERDICT_HELD, VERDICT_WEAKER})
    assert found["measured"]["watch_ms"] is not None
