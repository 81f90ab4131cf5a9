"""Members and children in processes with the settings of users, on every store; handlers that harm children."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from cluster.group import NewGroup
from cluster.stores import Kind
from settings_kit import ALARM, DONE, RING, crawl, write_script

from smoothcluster import State, Task

SETTINGS = """
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
socket.setdefaulttimeout(30)
os.environ.clear()
folder = pathlib.Path(sys.argv[0]).parent / "elsewhere"
folder.mkdir()
(folder / "json.py").write_text("raise SystemError('imported from the current folder')")
os.chdir(folder)
os.umask(0o777)
sys.path.insert(0, pathlib.Path("lib"))
sys.setrecursionlimit(200)
"""


@pytest.mark.parametrize(("isolated", "flags"), [(True, ()), (False, ("-W", "error", "-OO"))])
def test_settings_of_the_process(store: str, tmp_path: Path, isolated: bool, flags: Sequence[str]) -> None:
    """Nothing depends on them, nor on what Python makes of warnings and assertions."""
    done = crawl(write_script(tmp_path, ALARM + SETTINGS, RING), store, isolated=isolated, flags=flags)
    assert (done.outcomes, done.status) == (DONE, 0), done.errors
    assert ("a signal handler of the program raised" in done.errors) is not isolated


def test_a_task_that_writes_to_all_sockets(new_group: NewGroup, kind: Kind) -> None:
    """Its child is ended, and the only worker goes on; the task is quarantined with that as the evidence."""
    if kind.scheme != "sqlite":
        pytest.skip("how a task runs does not depend on the store")
    group = new_group(runner=1, backup=0, isolation={}, concurrency=1)
    member = group.start_one()
    names = [f"good-{number}" for number in range(10)]
    tasks = [Task(id="bad", meta={"dies": "nonsense"}), *(Task(id=name) for name in names)]
    outcomes = {each.task_id: each for each in group.finish(group.cluster.submit(tasks), {"bad", *names})}
    assert {outcomes[name].state for name in names} == {State.DONE}
    assert (outcomes["bad"].state, group.dead) == (State.QUARANTINED, 0)
    (quarantined,) = group.cluster.quarantine()
    assert [each["evidence"] for each in quarantined.evidence] == ["child_nonsense"] * 2
    assert "sent bytes that are no message" in member.errors
