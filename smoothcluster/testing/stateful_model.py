"""The random moves, and the dict with which the store is compared."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from hypothesis import strategies as st

from smoothcluster.backend import Change, Condition, Create, Delete, Exists, Update, Watch

KEY_NAMES = ("a", "b", "d/a", "d/b", "d/e/a")
DIRECTORY_PATHS = ("", "/d", "/d/e", "/none")
WATCHED_PATHS = (*DIRECTORY_PATHS, *(f"/{name}" for name in KEY_NAMES))


@dataclass(frozen=True, slots=True)
class Move:
    """One part of a commit, drawn without regard to the current state of the store."""

    name: str
    act: str
    value: bytes
    leased: bool
    version: int
    """The version to use of the key's past versions, counted back from the last; modulo their number."""


MOVE_LISTS = st.lists(
    st.builds(
        Move,
        name=st.sampled_from(KEY_NAMES),
        # Creations twice: without keys there is little to try.
        act=st.sampled_from(("create", "create", "update", "update at", "delete", "delete at", "exists", "at version")),
        value=st.binary(max_size=3),
        leased=st.booleans(),
        version=st.sampled_from((0, 0, 0, 1, 2)),
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda move: move.name,
)


@dataclass(frozen=True, slots=True)
class Known:
    """The state of a key in the model."""

    value: bytes
    version: str
    lease: str | None
    born: int


@dataclass(slots=True)
class Watched:
    """A watch with the number of wakes."""

    path: str
    values: bool
    watch: Watch | None = None
    wakes: int = 0

    def notify(self) -> None:
        """Count a wake."""
        self.wakes += 1

    def woken_since(self, count: int) -> bool:
        """Whether the watch woke after the first *count* times."""
        return self.wakes > count


@dataclass(slots=True)
class Model:
    """The expected contents of the store, as a dict."""

    keys: dict[str, Known] = field(default_factory=dict[str, Known])
    versions: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    commits: int = 0

    def failing(self, parts: Sequence[Condition | Change]) -> set[str]:
        """The keys of the parts that do not hold."""
        return {part.key for part in parts if not self._holds(part)}

    def _holds(self, part: Condition | Change) -> bool:
        known = self.keys.get(part.key)
        if isinstance(part, Create):
            return known is None
        if known is None or isinstance(part, Exists):
            return known is not None
        return part.version is None or part.version == known.version

    def apply(self, changes: Sequence[Change], versions: dict[str, str]) -> None:
        """Apply *changes*, which made *versions*."""
        self.commits += 1
        for change in changes:
            key = change.key
            if isinstance(change, Delete):
                del self.keys[key]
                continue
            if isinstance(change, Update):
                assert versions[key] != self.keys[key].version, f"{key} has a new value and its old version"
                self.keys[key] = replace(self.keys[key], value=change.value, version=versions[key])
            else:
                lease = change.lease.id if change.lease else None
                self.keys[key] = Known(change.value, versions[key], lease, self.commits)
            self.versions.setdefault(key, []).append(versions[key])

    def names(self, directory: str) -> list[str]:
        """The full names of keys and directories directly in *directory*."""
        inside = [key[len(directory) + 1 :] for key in self.keys if key.startswith(f"{directory}/")]
        return sorted({f"{directory}/{name.partition('/')[0]}" for name in inside})
