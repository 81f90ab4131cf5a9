"""During an outage a log has a line or two, and all of them are ours: drivers keep silent."""

import logging
from contextlib import closing
from importlib import import_module
from pathlib import Path

import pytest
from cli_kit import invoke_on
from cluster.group import Member, NewGroup
from cluster.stores import Kind, Store

from smoothcluster import connect
from smoothcluster.clock import SYSTEM_CLOCK
from smoothcluster.errors import BackendError
from smoothcluster.member.outage import MOST_REASONS_PER_REMINDER
from smoothcluster.server_options import OPTIONS_VARIABLE

OUTAGE = 3.0
"""Seconds: long enough for a driver that logs each attempt to fill a screen."""

MOST_LINES = MOST_REASONS_PER_REMINDER + 1
"""The reasons, and an incarnation that has ended."""


def lines(member: Member) -> list[str]:
    """What the member has logged so far."""
    return member.errors.splitlines()


def test_a_members_log_of_an_outage_is_short(new_group: NewGroup, own_store: Store) -> None:
    """At INFO, as an application may log; and each line tells of our own logger, or of the user's."""
    group = new_group(own_store.url, runner=1, backup=0, lease_ttl=1.0)
    member = group.start_one()
    group.converged()
    before = len(lines(member))
    own_store.kill()
    since = SYSTEM_CLOCK.monotonic()
    group.eventually(lambda: any("the store is unavailable" in line for line in lines(member)))
    group.eventually(lambda: SYSTEM_CLOCK.monotonic() > since + OUTAGE)
    during = lines(member)[before:]
    own_store.start()
    group.eventually(lambda: any("the store is available again" in line for line in lines(member)))
    group.converged()
    assert len(during) <= MOST_LINES, during
    said = lines(member)
    assert all(" smoothcluster: " in line for line in said), said


@pytest.mark.quick
def test_a_command_says_one_line(kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error; no driver speaks before."""
    monkeypatch.setattr(import_module("smoothcluster.cli.status"), "STORE_RETRY_SECONDS", 0.5)
    options = tmp_path / "options.json"
    options.write_text('{"timeout": 0.5}')
    options.chmod(0o600)
    monkeypatch.setenv(OPTIONS_VARIABLE, str(options))
    done = invoke_on(kind.nowhere())("status")
    assert done.exit_code != 0
    assert len(done.stderr.splitlines()) == 1, done.stderr


@pytest.mark.quick
@pytest.mark.parametrize("level", [logging.WARNING, logging.INFO])
def test_an_application_gets_the_error_and_no_chatter(kind: Kind, level: int, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever the level of its root logger."""
    caplog.set_level(level)
    with closing(connect(kind.nowhere(), timeout=0.5)) as backend, pytest.raises(BackendError):
        backend.get("a")
    assert [record.getMessage() for record in caplog.records] == []
