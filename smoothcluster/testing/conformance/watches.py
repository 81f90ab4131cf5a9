"""Rules of watches: a watch may wake without a change, but never misses the last change."""

import threading
from collections.abc import Callable

import pytest

from smoothcluster.backend import CoordinationBackend, Create, Delete, Update
from smoothcluster.errors import StoreLimitError
from smoothcluster.testing.clock import eventually
from smoothcluster.testing.conformance.kit import Kit, Wakes, create, delete, fill, in_parallel


def make_again(client: CoordinationBackend, key: str) -> None:
    """Delete and create *key*."""
    delete(client, key)
    create(client, key)


Act = Callable[[CoordinationBackend, str], object]
"""A change beside a key ``there`` in a directory."""

CREATIONS_AND_DELETIONS: dict[str, Act] = {
    "create": lambda client, root: create(client, f"{root}/new"),
    "delete": lambda client, root: delete(client, f"{root}/there"),
    "delete and create": lambda client, root: make_again(client, f"{root}/there"),
    "several in one commit": lambda client, root: client.commit(
        [], [Update(f"{root}/there", b""), Create(f"{root}/new", b""), Create(f"{root}/deep/new", b"")]
    ),
}
VALUE_UPDATES: dict[str, Act] = {
    "update": lambda client, root: client.commit([], [Update(f"{root}/there", b"new")]),
    "update to the same value": lambda client, root: client.commit([], [Update(f"{root}/there", b"old")]),
}
ALL_CHANGES = {**CREATIONS_AND_DELETIONS, **VALUE_UPDATES}


class WatchRules(Kit):
    """The changes for which a watch wakes."""

    @pytest.mark.parametrize("act", ALL_CHANGES.values(), ids=ALL_CHANGES)
    def test_a_watch_of_a_directory_hears_of_its_keys(
        self, backend: CoordinationBackend, other: CoordinationBackend, root: str, act: Act
    ) -> None:
        """The watch wakes when keys directly in the directory come, go or change value, by any client."""
        for number, client in enumerate((backend, other)):
            directory = f"{root}/{number}"
            create(client, f"{directory}/there", b"old")
            wakes = Wakes()
            backend.watch(directory, wakes)
            before = wakes.count
            act(client, directory)
            wakes.since(before)

    @pytest.mark.parametrize("act", CREATIONS_AND_DELETIONS.values(), ids=CREATIONS_AND_DELETIONS)
    def test_a_watch_without_values_hears_of_comings_and_goings(
        self, backend: CoordinationBackend, other: CoordinationBackend, root: str, act: Act
    ) -> None:
        """With values=False, created and deleted keys still wake the watch, also after values have changed."""
        create(other, f"{root}/there", b"old")
        wakes = Wakes()
        backend.watch(root, wakes, values=False)
        other.commit([], [Update(f"{root}/there", b"new")])
        backend.sync()
        before = wakes.count
        act(other, root)
        wakes.since(before)

    @pytest.mark.parametrize("values", [True, False], ids=["values", "no values"])
    def test_a_watch_of_a_key_hears_of_its_coming_and_going(
        self, backend: CoordinationBackend, other: CoordinationBackend, root: str, *, values: bool
    ) -> None:
        """The key at the path may be absent, come, go and come again, many times: the watch wakes each time."""
        wakes = Wakes()
        backend.watch(f"{root}/a", wakes, values=values)
        for _ in range(self.rounds):
            before = wakes.count
            create(other, f"{root}/a")
            wakes.since(before)
            backend.sync()
            before = wakes.count
            delete(other, f"{root}/a")
            wakes.since(before)
            backend.sync()

    def test_a_watch_of_a_key_hears_of_every_new_value(
        self, backend: CoordinationBackend, other: CoordinationBackend, root: str
    ) -> None:
        """The watch wakes for each new value, not only for the first."""
        create(other, f"{root}/a")
        wakes = Wakes()
        backend.watch(f"{root}/a", wakes)
        for number in range(self.rounds):
            before = wakes.count
            other.commit([], [Update(f"{root}/a", str(number).encode())])
            wakes.since(before)
            backend.sync()

    def test_a_watch_may_be_armed_before_its_directory_exists(
        self, backend: CoordinationBackend, other: CoordinationBackend, root: str
    ) -> None:
        """The watch wakes when the first key comes, also below new directories, and when keys go and come again."""
        wakes = Wakes()
        backend.watch(f"{root}/a/b/c", wakes)
        for _ in range(3):
            before = wakes.count
            create(other, f"{root}/a/b/c/1")
            wakes.since(before)
            backend.sync()
            before = wakes.count
            delete(other, f"{root}/a/b/c/1")
            wakes.since(before)
            backend.sync()

    def test_every_watch_of_a_path_wakes(
        self, backend: CoordinationBackend, other: CoordinationBackend, root: str
    ) -> None:
        """Several watches of the same path, by the same client or another, each wake; closing one leaves the rest."""
        all_wakes = [Wakes() for _ in range(4)]
        watches = [
            client.watch(root, wakes)
            for client, wakes in zip([backend, backend, other, backend], all_wakes, strict=True)
        ]
        create(other, f"{root}/a")
        for wakes in all_wakes:
            wakes.since(0)
        watches[0].close()
        before = [wakes.count for wakes in all_wakes]
        create(other, f"{root}/b")
        for wakes, count in list(zip(all_wakes, before, strict=True))[1:]:
            wakes.since(count)

    def test_a_closed_watch_falls_silent(
        self, backend: CoordinationBackend, other: CoordinationBackend, root: str
    ) -> None:
        """After `close` at most one more call arrives; closing again is harmless."""
        closed, control = Wakes(), Wakes()
        watch = backend.watch(root, closed)
        backend.watch(root, control)
        watch.close()
        watch.close()
        before = closed.count
        for number in range(5):
            count = control.count
            create(other, f"{root}/{number}")
            control.since(count)
            backend.sync()
        assert closed.count <= before + 1

    def test_no_watch_misses_the_last_of_many_values(
        self, backend: CoordinationBackend, other: CoordinationBackend, root: str
    ) -> None:
        """A reader that waits, reads and waits again ends with the last value, however fast the values change."""
        last = str(self.rounds * 10).encode()
        create(other, f"{root}/a", b"0")

        def write() -> None:
            for number in range(1, self.rounds * 10 + 1):
                other.commit([], [Update(f"{root}/a", str(number).encode())])

        def read() -> None:
            wakes = Wakes()
            watch = backend.watch(f"{root}/a", wakes)
            while (entry := backend.get(f"{root}/a")) is None or entry.value != last:
                assert wakes.flag.wait(30), f"asleep at {entry and entry.value!r}"
                wakes.flag.clear()
            watch.close()

        in_parallel([write, read])

    def test_armed_first_and_read_second_nothing_is_missed(
        self, backend: CoordinationBackend, other: CoordinationBackend, root: str
    ) -> None:
        """A change at the very moment of arming shows in a later read, or wakes the watch."""
        for number in range(self.rounds):
            key = f"{root}/{number}/a"
            armed = threading.Barrier(2)

            def change(key: str = key, armed: threading.Barrier = armed) -> None:
                armed.wait()
                create(other, key)

            def arm_and_read(key: str = key, armed: threading.Barrier = armed, number: int = number) -> None:
                wakes = Wakes()
                armed.wait()
                watch = backend.watch(f"{root}/{number}", wakes)
                while not backend.keys(f"{root}/{number}"):
                    assert wakes.flag.wait(30), f"{key} was made and nobody woke"
                    wakes.flag.clear()
                watch.close()

            in_parallel([change, arm_and_read])

    def test_a_watch_of_a_directory_sees_it_emptied(
        self, backend: CoordinationBackend, other: CoordinationBackend, root: str
    ) -> None:
        """A reader that lists on each wake ends with an empty directory after the last key has gone."""
        names = [f"{root}/{number}" for number in range(self.rounds)]
        for name in names:
            create(other, name)
        wakes = Wakes()
        backend.watch(root, wakes, values=False)
        done = threading.Event()

        def read() -> None:
            while backend.keys(root):
                assert wakes.flag.wait(30), "keys went and nobody woke"
                wakes.flag.clear()
            done.set()

        def remove() -> None:
            for name in names:
                other.commit([], [Delete(name)])

        in_parallel([read, remove])
        eventually(done.is_set)

    def test_watches_may_be_as_many_as_promised_and_no_more(
        self, backend: CoordinationBackend, other: CoordinationBackend, root: str
    ) -> None:
        """A change wakes each of `most_watches` watches; one more is StoreLimitError, until a watch is closed."""
        most = min(backend.guarantees.most_watches, 1000)
        all_wakes = [Wakes() for _ in range(most)]
        # Half of the watches are on keys of a directory, the other half on the directory.
        paths = [f"{root}/{number:06}" for number in range(most // 2)]
        paths += [root] * (most - len(paths))
        watches = [backend.watch(path, wakes) for path, wakes in zip(paths, all_wakes, strict=True)]
        backend.sync()
        before = [wakes.count for wakes in all_wakes]
        fill(other, root, most // 2)
        for wakes, count in zip(all_wakes, before, strict=True):
            wakes.since(count)
        if most == backend.guarantees.most_watches:
            with pytest.raises(StoreLimitError, match=f"{most} at most"):
                backend.watch(root, Wakes())
        watches[0].close()
        watches[0].close()
        backend.watch(root, Wakes())
