"""Backup Runners that check themselves: what they find is shown, and who could not work is passed over."""

from typing import Any

from cluster.group import Group, NewGroup

WHY = "no child process can import the handler: ImportError: there is no database for children"


def standbys(group: Group) -> dict[str, dict[str, Any]]:
    """What `status` says of those that stand by, by their names."""
    return {each["name"]: each for each in group.status()["members"] if each["role"] == "backup-runner"}


def test_a_standby_whose_children_cannot_import_the_handler_is_passed_over(new_group: NewGroup) -> None:
    """Though its turn came first; `status` says why, and of both when they last looked."""
    group = new_group(runner=1, backup=2)
    first, bad, good = (group.start_one(handler=handler) for handler in ("act", "act_here", "act"))
    group.eventually(lambda: all(each["checked"] for each in standbys(group).values()))
    found = standbys(group)
    assert (found[bad.name]["unfit"], found[bad.name]["suspects"]) == (WHY, "alone")
    assert (found[good.name]["unfit"], found[good.name]["suspects"]) == (None, "apart")
    job = group.submit(20, nap=0.05)
    group.busy(first)
    first.kill()
    assert {event["to"] for event in group.handovers(first.name)} == {good.name}
    job.wait(60)
    assert group.backups() == [bad]
