"""Backup Runners that check themselves: what they find is shown, and who could not work is passed over."""

from cluster.group import NewGroup


def test_a_standby_whose_children_cannot_import_the_handler_is_passed_over(new_group: NewGroup) -> None:
    """Though its turn came first; `status` says why, and of both when they last looked."""
    group = new_group(runner=1, backup=2)
    first, bad, good = (group.start_one(handler=handler) for handler in ("act", "act_here", "act"))
    standbys = lambda: {each["name"]: each for each in group.status()["members"] if each["seat"] is None}  # noqa: E731
    group.eventually(lambda: all(each["checked"] for each in standbys().values()))
    found = standbys()[bad.name]
    assert found["unfit"] == ("no child process can import the handler: ImportError: there is no database for children")
    assert found["suspects"] == "alone"
    assert standbys()[good.name]["unfit"] is None
    job = group.submit(20, nap=0.05)
    group.busy(first)
    first.kill()
    assert {event["to"] for event in group.handovers(first.name)} == {good.name}
    job.wait(60)
    assert group.backups() == [bad]
