"""Mapping from keys of the library to znodes.

``~`` stands here for a character forbidden in keys. The key ``a/b`` is the znode ``a/b~``, and the directory
``a`` is the znode ``a``. So a listing distinguishes keys from directories by name, and nobody mistakes an empty
directory for a key. But a name must not be both. So each directory has a *stand-in* in the place of a key with
the same name. The stand-in takes the name, may be neither read nor written (so conditions and updates fail), and
has a child (so a delete fails).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from kazoo.security import ACL, Id, Permissions

from smoothcluster.backend import check_key

LEASES_DIRECTORY = "~leases"
"""Name of the directory of leases in the namespace: no key or directory can have this name."""

_RESERVED_MARK = "~"


@dataclass(frozen=True, slots=True)
class Access:
    """Permissions of the created znodes: all rights for this client, few rights on a stand-in."""

    all: tuple[ACL, ...]
    stand_in: tuple[ACL, ...]

    @classmethod
    def of(cls, *, authenticated: bool) -> "Access":
        """Return permissions for the client's own credentials only, or for anyone."""
        who = Id("auth", "") if authenticated else Id("world", "anyone")
        inside_only = Permissions.CREATE | Permissions.DELETE | Permissions.ADMIN
        return cls((ACL(Permissions.ALL, who),), (ACL(inside_only, who),))


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths under *root*, which begins with a slash."""

    root: str

    def key(self, key: str) -> str:
        """Return the znode of *key*."""
        return f"{self.root}/{check_key(key)}{_RESERVED_MARK}"

    @staticmethod
    def is_key(znode: str) -> bool:
        """Return whether *znode* holds a key, or is a directory's stand-in."""
        return znode.endswith(_RESERVED_MARK)

    @staticmethod
    def key_in(directory: str, name: str) -> str:
        """Return the znode of the key *name* in *directory*, a znode."""
        return f"{directory}/{name}{_RESERVED_MARK}"

    def directory(self, directory: str) -> str:
        """Return the znode of *directory*, the parent of the directory's keys."""
        return f"{self.root}/{check_key(directory)}"

    @staticmethod
    def child(directory: str) -> str:
        """Return the child of the stand-in of *directory*, a znode; the child prevents deletion."""
        return f"{directory}{_RESERVED_MARK}/{_RESERVED_MARK}"

    @staticmethod
    def stand_in(directory: str) -> str:
        """Return the stand-in of *directory*, a znode."""
        return directory + _RESERVED_MARK

    @property
    def leases(self) -> str:
        """The znode above all leases."""
        return f"{self.root}/{LEASES_DIRECTORY}"


def sort_names(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split the names of a listing into names of keys and names of directories, each sorted."""
    directories = {name for name in names if not name.endswith(_RESERVED_MARK) and not name.startswith(_RESERVED_MARK)}
    keys = {name.removesuffix(_RESERVED_MARK) for name in names if name.endswith(_RESERVED_MARK)} - directories - {""}
    return sorted(keys), sorted(directories)
