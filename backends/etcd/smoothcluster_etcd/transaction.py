"""A commit as one etcd transaction, and another that tells why it was refused."""

from collections.abc import Sequence
from typing import Any, final

from etcd3 import etcdrpc

from smoothcluster.backend import Change, Condition, Create, Delete, Exists, Refused
from smoothcluster.errors import MisplacedKeyError
from smoothcluster_etcd.layout import ancestors, end, place

_rpc: Any = etcdrpc

COMPARISONS = 128
"""Of one transaction, unless a server's `--max-txn-ops` says otherwise. As many operations, too."""

Part = Condition | Change

Message = dict[str, Any]
"""One of etcd's, its fields by name."""

_CREATED, _MODIFIED, _GREATER = _rpc.Compare.CREATE, _rpc.Compare.MOD, _rpc.Compare.GREATER


@final
class Transaction:
    """All of *conditions*, and those that *changes* imply, compared; then all changes, or nothing.

    That a key holds bytes or is a directory costs one comparison for each new key, and one for
    each directory of one that no other part of the commit shows to be there. In a commit so large
    that these exceed what etcd takes, the rest is not compared: the rule guards against mistakes,
    and nothing here depends on it.

    *after* is a range to read at the end, whatever comes of it.
    """

    def __init__(
        self,
        namespace: str,
        conditions: Sequence[Condition],
        changes: Sequence[Change],
        lease: int,
        after: Message | None = None,
    ) -> None:
        self._parts: tuple[Part, ...] = (*conditions, *changes)
        self._keys = [place(namespace, part.key) for part in self._parts]
        self._directories = _new_directories(self._parts)[: COMPARISONS - 1 - len(self._parts)]
        self._places = [place(namespace, each) for each in self._directories]
        self._last = [] if after is None else [{"request_range": after}]
        changed = zip(changes, self._keys[len(conditions) :], strict=True)
        # Of dictionaries: protobuf would copy a message that is put into another, by way of its bytes.
        self.request: Any = _rpc.TxnRequest(
            compare=[*map(_compare, self._parts, self._keys), *map(_absent, self._places)],
            success=[*(_change(change, key, lease) for change, key in changed), *self._last],
        )

    def look(self) -> Any:
        """A transaction that reads what the commit's parts are about, for `refusal`."""
        looks = [*map(_look, self._parts, self._keys), *map(_look_at, self._places), *self._last]
        return _rpc.TxnRequest(success=looks)

    def refusal(self, answer: Any) -> Refused | None:
        """What came of the commit by the *answer* to `look`, had it been made then; None if it would be applied.

        Raise MisplacedKeyError if it is a place that a key cannot have.
        """
        seen = [each.response_range.kvs for each in answer.responses]
        for part, key, found in zip(self._parts, self._keys, seen, strict=False):
            if not _holds(part, key, found):
                return Refused(part.key)
        for part, found in zip(self._parts, seen, strict=False):
            if isinstance(part, Create) and found:
                raise MisplacedKeyError(part.key, "is a directory and cannot hold bytes")
        for directory, found in zip(self._directories, seen[len(self._parts) :], strict=False):
            if found:
                raise MisplacedKeyError(directory, "holds bytes and cannot be a directory")
        return None


def _new_directories(parts: Sequence[Part]) -> list[str]:
    """The directories of keys to be made, without those that other parts show to be directories already."""
    created = {part.key for part in parts if isinstance(part, Create)}
    if not created:
        return []
    above = {directory for key in created for directory in ancestors(key)}
    if both := created & above:
        raise MisplacedKeyError(min(both), "cannot hold bytes and be a directory")
    there = {directory for part in parts if part.key not in created for directory in ancestors(part.key)}
    return sorted(above - there)


def _compare(part: Part, key: bytes) -> Message:
    if isinstance(part, Create):
        return {"target": _CREATED, "key": key, "range_end": end(key), "create_revision": 0}
    version = None if isinstance(part, Exists) else part.version
    if version is None:
        return {"result": _GREATER, "target": _CREATED, "key": key, "create_revision": 0}
    # Revision 0 would be that of a key that is not there.
    return {"target": _MODIFIED, "key": key, "mod_revision": int(version) or -1}


def _absent(key: bytes) -> Message:
    return {"target": _CREATED, "key": key, "create_revision": 0}


def _look(part: Part, key: bytes) -> Message:
    """Of a key to be made, also the first one under it."""
    return _look_at(key, end(key) if isinstance(part, Create) else b"")


def _look_at(key: bytes, range_end: bytes = b"") -> Message:
    return {"request_range": {"key": key, "range_end": range_end, "limit": 1, "keys_only": True}}


def _change(change: Change, key: bytes, lease: int) -> Message:
    match change:
        case Delete():
            return {"request_delete_range": {"key": key}}
        case Create():
            return {"request_put": {"key": key, "value": change.value, "lease": lease if change.lease else 0}}
        case _:
            return {"request_put": {"key": key, "value": change.value, "ignore_lease": True}}


def _holds(part: Part, key: bytes, found: Any) -> bool:
    if isinstance(part, Create):
        return not found or found[0].key != key
    version = None if isinstance(part, Exists) else part.version
    return bool(found) and version in (None, str(found[0].mod_revision))
