"""Which znode holds what.

With ``~`` for a letter that no key has, the key ``a/b`` is the znode ``a/b~`` and the directory
``a`` is the znode ``a``: so a listing tells keys from directories by name, and a directory that
was left empty is never mistaken for a key, nor in its way. But a name must not be both. So each
directory has a *stand-in* where its key would be: it takes the name, may be neither read nor
written (so that conditions and updates fail), and has a child (so that it cannot be deleted).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from kazoo.security import ACL, Id, Permissions

from smoothcluster.backend import check_key

LEASES = "~leases"
"""Name, in the namespace, of the directory of leases: no key or directory can have it."""

_MARK = "~"


@dataclass(frozen=True, slots=True)
class Access:
    """Permissions of the znodes we make: everything for us, and what a stand-in may suffer."""

    all: tuple[ACL, ...]
    stand_in: tuple[ACL, ...]

    @classmethod
    def of(cls, *, authenticated: bool) -> "Access":
        """For our own credentials only, or for anyone."""
        who = Id("auth", "") if authenticated else Id("world", "anyone")
        inside_only = Permissions.CREATE | Permissions.DELETE | Permissions.ADMIN
        return cls((ACL(Permissions.ALL, who),), (ACL(inside_only, who),))


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths under *root*, which begins with a slash."""

    root: str

    def key(self, key: str) -> str:
        """The znode that holds *key*."""
        return f"{self.root}/{check_key(key)}{_MARK}"

    @staticmethod
    def key_in(directory: str, name: str) -> str:
        """The znode that holds the key *name* in *directory*, a znode."""
        return f"{directory}/{name}{_MARK}"

    def directory(self, directory: str) -> str:
        """The znode under which the keys of *directory* lie."""
        return f"{self.root}/{check_key(directory)}"

    @staticmethod
    def child(directory: str) -> str:
        """What keeps the stand-in of *directory*, a znode, from being deleted."""
        return f"{directory}{_MARK}/{_MARK}"

    @staticmethod
    def stand_in(directory: str) -> str:
        """The znode that takes the name of *directory*, a znode."""
        return directory + _MARK

    @property
    def leases(self) -> str:
        """The znode under which leases lie."""
        return f"{self.root}/{LEASES}"


def sort_names(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Part what a listing shows into names of keys and names of directories, each sorted."""
    directories = {name for name in names if not name.endswith(_MARK) and not name.startswith(_MARK)}
    keys = {name.removesuffix(_MARK) for name in names if name.endswith(_MARK)} - directories - {""}
    return sorted(keys), sorted(directories)
