"""Entries of blame: how each start of a task ended, written, read and told in words."""

from smoothcluster.records.blame import Entry, count_starts, describe, ended_as, format_entry, parse_entries

GONE, ALONE, RAISED = "a@1:process_gone", "b@2:alone", "b@2:child_raised"
SEGFAULT = "b@2:child_signal_SIGSEGV@1700000000"


def test_an_entry_is_read_as_it_was_written() -> None:
    """With the time or without it."""
    assert list(parse_entries([format_entry("a@b", 3, "left"), format_entry("c", 4, "child_exit_0", 17.9)])) == [
        Entry("a@b", 3, "left", None),
        Entry("c", 4, "child_exit_0", 17),
    ]


def test_an_announcement_is_no_start() -> None:
    """What follows it is."""
    assert count_starts([GONE, ALONE, "b@2:process_gone"]) == 2
    assert count_starts(["garbage"]) == 1


def test_ways() -> None:
    """A way that it has once ended."""
    assert ended_as([GONE, RAISED], "child_raised")
    assert not ended_as([GONE], "child_raised")


def test_words_name_incarnations_epochs_and_times() -> None:
    """The latest first; a time that is none is left out."""
    told = describe([GONE, "b@2:alone", SEGFAULT, "c@3:left@99999999999999999999"])
    assert told == (
        "its process ended whenever it ran: left in c at epoch 3, "
        "child_signal_SIGSEGV in b at epoch 2 on 2023-11-14T22:13:20+00:00, process_gone in a at epoch 1"
    )
