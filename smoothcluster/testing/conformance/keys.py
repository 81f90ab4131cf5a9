"""Rules of reading, and of keys and directories."""

import threading

import pytest

from smoothcluster.backend import MOST_KEY_SEGMENTS, Committed, CoordinationBackend, Create, Delete, Refused, Update
from smoothcluster.errors import OutcomeUnknownError, StoreLimitError
from smoothcluster.testing.conformance.kit import Kit, create, delete, fill, in_parallel

ALLOWED_CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.:@+=-"


class KeyRules(Kit):
    """The results of reads."""

    def test_an_absent_key_reads_as_none(self, backend: CoordinationBackend, root: str) -> None:
        """A key never made reads as None."""
        assert backend.get(f"{root}/absent") is None

    def test_many_keys_are_read_in_the_order_asked(self, backend: CoordinationBackend, root: str) -> None:
        """`get_many` answers key by key, None for absent keys; a key may be repeated, and the list may be empty."""
        create(backend, f"{root}/a", b"1")
        create(backend, f"{root}/b", b"2")
        entries = backend.get_many([f"{root}/b", f"{root}/no", f"{root}/a", f"{root}/b"])
        assert [entry and entry.value for entry in entries] == [b"2", None, b"1", b"2"]
        assert backend.get_many([]) == []

    def test_an_entry_says_what_was_written(self, backend: CoordinationBackend, root: str) -> None:
        """An entry has the key, the value, the version returned by the commit, and without a lease None."""
        version = create(backend, f"{root}/a", b"value")
        entry = backend.get(f"{root}/a")
        assert entry is not None
        assert (entry.key, entry.value, entry.version, entry.lease) == (f"{root}/a", b"value", version, None)

    @pytest.mark.parametrize(
        "value", [b"", b"\0", bytes(range(256)), b"\xff" * 1000], ids=["empty", "nul", "all", "ff"]
    )
    def test_any_bytes_are_a_value(self, backend: CoordinationBackend, root: str, value: bytes) -> None:
        """Values are bytes, of any content and none; an empty value is not an absent key."""
        create(backend, f"{root}/created", value)
        create(backend, f"{root}/updated", b"before")
        assert isinstance(backend.commit([], [Update(f"{root}/updated", value)]), Committed)
        assert [entry.value for entry in backend.list(root)] == [value, value]

    def test_any_allowed_character_and_length_is_a_key(self, backend: CoordinationBackend, root: str) -> None:
        """A key may use every allowed character, 512 of them, and as many segments as allowed."""
        create(backend, f"{root}/{ALLOWED_CHARACTERS}", b"1")
        deep = f"{root}/" + "d/" * (MOST_KEY_SEGMENTS - 1 - len(root.split("/")))
        longest = deep + "x" * (512 - len(deep))
        create(backend, longest, b"2")
        assert [entry and entry.value for entry in backend.get_many([f"{root}/{ALLOWED_CHARACTERS}", longest])] == [
            b"1",
            b"2",
        ]

    def test_directories_need_no_making(self, backend: CoordinationBackend, root: str) -> None:
        """A key at any depth can be made at once, even several such keys in one commit."""
        changes = [Create(f"{root}/a/b/c/1", b"1"), Create(f"{root}/a/b/d/2", b"2")]
        assert isinstance(backend.commit([], changes), Committed)
        assert backend.keys(f"{root}/a/b") == [f"{root}/a/b/c", f"{root}/a/b/d"]

    def test_a_directory_lists_what_lies_directly_in_it(self, backend: CoordinationBackend, root: str) -> None:
        """`keys` gives full names, sorted, each once, including names that only lead deeper."""
        for key in ("b", "deep/1", "a", "deep/2", "deeper/still/3", "c"):
            create(backend, f"{root}/{key}")
        assert backend.keys(root) == [f"{root}/{name}" for name in ("a", "b", "c", "deep", "deeper")]
        assert backend.keys(f"{root}/deep") == [f"{root}/deep/1", f"{root}/deep/2"]

    def test_a_list_holds_keys_only(self, backend: CoordinationBackend, root: str) -> None:
        """`list` gives the entries directly in a directory, sorted; names that only lead deeper have no entry."""
        for key in ("z", "deep/1", "a"):
            create(backend, f"{root}/{key}", key.encode())
        assert [(entry.key, entry.value) for entry in backend.list(root)] == [(f"{root}/a", b"a"), (f"{root}/z", b"z")]

    def test_names_that_begin_alike_are_kept_apart(self, backend: CoordinationBackend, root: str) -> None:
        """Only a slash separates: ``a`` does not list the keys in ``a-b`` or ``ab``."""
        for key in ("a/1", "a-b/2", "ab/3", "a.b/4", "a0"):
            create(backend, f"{root}/{key}")
        assert backend.keys(f"{root}/a") == [f"{root}/a/1"]
        assert [entry.key for entry in backend.list(f"{root}/a")] == [f"{root}/a/1"]

    def test_an_absent_directory_is_empty(self, backend: CoordinationBackend, root: str) -> None:
        """A path that is no directory, whether absent or a key, lists as empty."""
        create(backend, f"{root}/a")
        assert backend.keys(f"{root}/no") == backend.keys(f"{root}/a") == []
        assert backend.list(f"{root}/no") == backend.list(f"{root}/a") == []

    def test_a_directory_goes_with_its_last_key(self, backend: CoordinationBackend, root: str) -> None:
        """A directory exists while there are keys under it, and is not listed after the last key goes."""
        create(backend, f"{root}/stays")
        create(backend, f"{root}/a/b/1")
        delete(backend, f"{root}/a/b/1")
        assert backend.keys(root) == [f"{root}/stays"]

    def test_a_directory_is_not_a_key(self, backend: CoordinationBackend, root: str) -> None:
        """A directory reads as None, and cannot be made a key while there are keys in it."""
        create(backend, f"{root}/a/b/1")
        assert backend.get_many([root, f"{root}/a", f"{root}/a/b"]) == [None, None, None]
        try:
            outcome = backend.commit([], [Create(f"{root}/a", b"")])
        except ValueError:
            return
        assert isinstance(outcome, Refused)

    def test_a_large_directory_is_read_whole(self, backend: CoordinationBackend, root: str) -> None:
        """No listing is truncated."""
        names = [f"{root}/{number:04}" for number in range(600)]
        for start in range(0, len(names), 60):
            backend.commit([], [Create(name, name.encode()) for name in names[start : start + 60]])
        assert backend.keys(root) == names
        assert [entry.value.decode() for entry in backend.list(root)] == names

    def test_a_directory_may_be_as_large_as_promised_and_no_larger(
        self, backend: CoordinationBackend, root: str
    ) -> None:
        """`largest_directory` names are listed; more are StoreLimitError. A commit there is applied nevertheless."""
        most = min(backend.guarantees.largest_directory, 2000)
        names = fill(backend, root, most)
        assert backend.keys(root) == names
        assert [entry.key for entry in backend.list(root)] == names
        if most == backend.guarantees.largest_directory:
            create(backend, f"{root}/more")
            for listing in (backend.keys, backend.list):
                with pytest.raises(StoreLimitError, match=f"{most} at most"):
                    listing(root)
            with pytest.raises(OutcomeUnknownError):
                backend.commit_and_list([], [Create(f"{root}/yet-more", b"")], root)
            assert backend.get(f"{root}/yet-more") is not None

    def test_created_orders_creations_and_nothing_else(
        self, backend: CoordinationBackend, other: CoordinationBackend, root: str
    ) -> None:
        """A key made later, by any client anywhere, has a larger `created`; an update does not change `created`."""
        for number, client in enumerate([backend, other, backend, other]):
            create(client, f"{root}/{9 - number}/x")
        backend.commit([], [Update(f"{root}/9/x", b"new")])
        backend.sync()
        entries = backend.get_many([f"{root}/{9 - number}/x" for number in range(4)])
        created = [entry.created for entry in entries if entry is not None]
        assert len(created) == 4
        assert created == sorted(set(created))

    def test_a_version_changes_with_every_update(self, backend: CoordinationBackend, root: str) -> None:
        """Every update gives a version new to the key, even if the value stays the same."""
        versions = [create(backend, f"{root}/a", b"same")]
        for _ in range(20):
            outcome = backend.commit([], [Update(f"{root}/a", b"same")])
            assert isinstance(outcome, Committed)
            versions.append(outcome.versions[f"{root}/a"])
            entry = backend.get(f"{root}/a")
            assert entry is not None
            assert entry.version == versions[-1]
        assert len(set(versions)) == len(versions)

    @pytest.mark.parametrize("leased", [False, True], ids=["plain", "leased"])
    def test_own_commits_are_seen_at_once(self, backend: CoordinationBackend, root: str, *, leased: bool) -> None:
        """A client's reads after its commit show the commit, with no `sync`, with keys on a lease or not."""
        lease = backend.lease(self.ttl) if leased else None
        create(backend, f"{root}/value", b"")
        for number in range(self.rounds):
            value, key = str(number).encode(), f"{root}/{number}"
            outcome = backend.commit([], [Create(key, value, lease), Update(f"{root}/value", value)])
            assert isinstance(outcome, Committed)
            entries = backend.get_many([key, f"{root}/value"])
            assert [entry and entry.value for entry in entries] == [value, value]
            assert len(backend.keys(root)) == 2
            delete(backend, key)
            assert backend.get(key) is None

    def test_after_sync_others_commits_are_seen(
        self, backend: CoordinationBackend, other: CoordinationBackend, root: str
    ) -> None:
        """After `sync`, reads show every commit of any client acknowledged before the `sync`."""
        for number in range(self.rounds):
            create(backend, f"{root}/{number}")
            other.sync()
            assert other.get(f"{root}/{number}") is not None
        delete(backend, f"{root}/0")
        other.sync()
        assert other.get(f"{root}/0") is None

    def test_reads_never_go_back(self, backend: CoordinationBackend, other: CoordinationBackend, root: str) -> None:
        """Reads of a client see the commits in their order: no read shows a state older than an earlier read.

        The same holds within one `get_many`: of two keys always changed together, the second read is never behind the
        first.
        """
        keys = [f"{root}/first", f"{root}/second"]
        backend.commit([], [Create(key, b"0") for key in keys])
        other.sync()
        done = threading.Event()

        def write() -> None:
            for number in range(1, self.rounds * 5):
                backend.commit([], [Update(key, str(number).encode()) for key in keys])
            done.set()

        def read() -> None:
            latest = 0
            while not done.is_set():
                for entry in other.get_many(keys):
                    assert entry is not None
                    assert int(entry.value) >= latest
                    latest = int(entry.value)

        in_parallel([write, read])

    def test_a_deleted_key_can_be_made_again(self, backend: CoordinationBackend, root: str) -> None:
        """Deleting frees the name, for any value; a deletion at the right version works."""
        version = create(backend, f"{root}/a", b"1")
        assert isinstance(backend.commit([], [Delete(f"{root}/a", version)]), Committed)
        create(backend, f"{root}/a", b"2")
        entry = backend.get(f"{root}/a")
        assert entry is not None
        assert entry.value == b"2"

    def test_a_commit_and_a_listing_after_it(
        self, backend: CoordinationBackend, other: CoordinationBackend, root: str
    ) -> None:
        """`commit_and_list` commits, then lists: the listing shows the commit's keys and all others."""
        lease = backend.lease(self.ttl)
        for number in range(3):
            key = f"{root}/queue/{number}"
            outcome, listing = backend.commit_and_list([], [Create(key, b"1", lease)], f"{root}/queue")
            assert isinstance(outcome, Committed)
            assert [entry.key for entry in listing] == [f"{root}/queue/{each}" for each in range(number + 1)]
            assert (listing[-1].version, listing[-1].lease) == (outcome.versions[key], lease.id)
            assert listing == backend.list(f"{root}/queue")
        create(other, f"{root}/queue/other")
        create(other, f"{root}/queue/deeper/key")
        outcome, listing = backend.commit_and_list([], [Create(f"{root}/queue/4", b"")], f"{root}/queue")
        assert [entry.key.rpartition("/")[2] for entry in listing] == ["0", "1", "2", "4", "other"]

    def test_a_refused_commit_and_a_listing_after_it(self, backend: CoordinationBackend, root: str) -> None:
        """The listing depends neither on the outcome nor on whether the commit touched the directory."""
        create(backend, f"{root}/a/1")
        outcome, listing = backend.commit_and_list([], [Create(f"{root}/a/1", b"")], f"{root}/a")
        assert outcome == Refused(f"{root}/a/1")
        assert [entry.key for entry in listing] == [f"{root}/a/1"]
        outcome, listing = backend.commit_and_list([], [Delete(f"{root}/a/1")], f"{root}/none")
        assert (isinstance(outcome, Committed), list(listing)) == (True, [])
