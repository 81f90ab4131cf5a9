"""What every adapter checks before it sends anything."""

from dataclasses import replace

import pytest

from smoothcluster.backend import (
    AtVersion,
    Change,
    Condition,
    CoordinationBackend,
    Create,
    Delete,
    Exists,
    Update,
    check_commit,
    check_key,
    commit_size,
)
from smoothcluster.errors import CommitTooLargeError
from smoothcluster.memory import WEAKEST, MemoryBackend
from smoothcluster.testing import HeldClock


@pytest.mark.parametrize("key", ["a", "a/b", "A.b:c@d+e=f-g_h/0", "...", "a/.b", "x" * 512, "a/" * 31 + "b"])
def test_a_good_key_is_returned(key: str) -> None:
    """Allowed characters in segments joined by single slashes: at most 512 characters and 32 segments."""
    assert check_key(key) == key


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/",
        "/a",
        "a/",
        "a//b",
        ".",
        "..",
        "a/../b",
        "a/.",
        "a b",
        "a\n",
        "a\0",
        "ä",
        "a*",
        "a\\b",
        "x" * 513,
        "a/" * 32 + "b",
    ],
)
def test_a_bad_key_is_a_value_error(key: str) -> None:
    """Anything else is ValueError, which shows the key and says what is allowed."""
    with pytest.raises(ValueError, match=r"key .* is not valid: use ") as caught:
        check_key(key)
    assert repr(key) in str(caught.value)


def test_a_commit_is_reckoned_by_keys_values_and_operations() -> None:
    """Bytes are those of keys and values, and 64 for each operation; conditions and changes both count."""
    size = commit_size([Exists("a"), AtVersion("bb", "1")], [Create("ccc", b"1234"), Update("d", b"12"), Delete("e")])
    assert (size.bytes, size.operations) == (8 + 6 + 5 * 64, 5)


def test_a_commit_that_hangs_on_nothing_has_no_lease() -> None:
    """`check_commit` returns None where no created key names a lease."""
    assert check_commit(WEAKEST, [Exists("a")], [Create("b", b""), Update("c", b""), Delete("d")]) is None


def test_the_one_lease_of_a_commit_is_returned() -> None:
    """`check_commit` returns the lease that created keys name, once or more often."""
    lease = MemoryBackend(clock=HeldClock()).lease(5)
    assert check_commit(WEAKEST, [], [Create("a", b""), Create("b", b"", lease), Create("c", b"", lease)]) is lease


def test_two_leases_are_a_value_error() -> None:
    """Keys on two leases cannot be made together."""
    backend = MemoryBackend(clock=HeldClock())
    with pytest.raises(ValueError, match="a single lease only"):
        check_commit(WEAKEST, [], [Create("a", b"", backend.lease(5)), Create("b", b"", backend.lease(5))])


@pytest.mark.parametrize(
    ("conditions", "changes", "message"),
    [
        ([], [], "at least one change"),
        ([Exists("a")], [], "at least one change"),
        ([Exists("a")], [Delete("a")], "'a' appears twice"),
        ([Exists("a"), AtVersion("a", "0")], [Delete("b")], "'a' appears twice"),
        ([], [Delete("a"), Create("a", b"")], "'a' appears twice"),
        ([], [Create("a//b", b"")], "key 'a//b' is not valid"),
        ([Exists("/")], [Delete("a")], "key '/' is not valid"),
    ],
)
def test_a_malformed_commit_is_a_value_error(conditions: list[Condition], changes: list[Change], message: str) -> None:
    """A commit needs a change, valid keys, and each of them once."""
    with pytest.raises(ValueError, match=message):
        check_commit(WEAKEST, conditions, changes)


def test_bounds_are_inclusive() -> None:
    """Exactly the largest value, commit and number of operations pass; one more is CommitTooLargeError."""
    bounds = replace(WEAKEST, largest_value=100, largest_commit=2 * 64 + 2 + 150, most_operations=2)
    check_commit(bounds, [], [Create("a", b"x" * 100), Create("b", b"x" * 50)])
    with pytest.raises(CommitTooLargeError, match="the value of 'a' has 101 bytes, and the store takes 100 at most"):
        check_commit(bounds, [], [Create("a", b"x" * 101)])
    with pytest.raises(CommitTooLargeError, match="281 bytes"):
        check_commit(bounds, [], [Create("a", b"x" * 100), Create("b", b"x" * 51)])
    with pytest.raises(CommitTooLargeError, match="3 operations"):
        check_commit(bounds, [Exists("a"), Exists("b")], [Delete("c")])


def test_a_list_is_made_of_keys_and_reads() -> None:
    """The contract's own `list` leaves out what only leads deeper, and needs no adapter to write it."""
    backend = MemoryBackend(clock=HeldClock())
    backend.commit([], [Create("d/b", b"2"), Create("d/a", b"1"), Create("d/deep/c", b"3")])
    assert CoordinationBackend.list(backend, "d") == backend.list("d")
    assert [entry.value for entry in backend.list("d")] == [b"1", b"2"]
