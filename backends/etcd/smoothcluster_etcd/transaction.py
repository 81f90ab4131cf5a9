"""A commit as a single etcd transaction, and a second transaction to find the reason for a refusal."""

from collections.abc import Sequence
from typing import Any, final

from etcd3 import etcdrpc

from smoothcluster.backend import Change, Condition, Create, Delete, Exists, Refused, commit_size
from smoothcluster.errors import MisplacedKeyError
from smoothcluster_etcd.layout import ancestors, etcd_key, range_end

_rpc: Any = etcdrpc

Part = Condition | Change

Message = dict[str, Any]
"""An etcd message as a dictionary of fields."""

_COMPARE_CREATE, _COMPARE_MOD, _COMPARE_GREATER = _rpc.Compare.CREATE, _rpc.Compare.MOD, _rpc.Compare.GREATER


@final
class Transaction:
    """Compare *conditions* and the conditions implied by *changes*; then apply all changes or none.

    A key holds bytes or is a directory, never both. To check this rule, the transaction compares each new
    key and each of its directories, except directories proven by another part of the commit. A large commit
    may need more comparisons than etcd takes. The transaction then leaves out the rest: the rule guards
    against mistakes, and nothing here depends on the check.

    *most* is the number of comparisons that etcd takes. *after* is a range to read at the end, whether the commit is
    applied or refused.
    """

    def __init__(
        self,
        namespace: str,
        conditions: Sequence[Condition],
        changes: Sequence[Change],
        lease: int,
        most: int,
        after: Message | None = None,
    ) -> None:
        self.size = commit_size(conditions, changes).bytes
        """The size of the commit in bytes."""
        self._parts: tuple[Part, ...] = (*conditions, *changes)
        self._keys = [etcd_key(namespace, part.key) for part in self._parts]
        self._directories = _new_directories(self._parts)[: max(0, most - 1 - len(self._parts))]
        self._directory_keys = [etcd_key(namespace, each) for each in self._directories]
        self._last = [] if after is None else [{"request_range": after}]
        changed = zip(changes, self._keys[len(conditions) :], strict=True)
        # Built from dictionaries: protobuf copies a nested message by serializing and parsing.
        self.request: Any = _rpc.TxnRequest(
            compare=[*map(_compare, self._parts, self._keys), *map(_absent, self._directory_keys)],
            success=[*(_change(change, key, lease) for change, key in changed), *self._last],
        )

    @property
    def comparisons(self) -> int:
        """The number of comparisons; the operations are fewer."""
        return len(self._parts) + len(self._directories)

    def inspection(self) -> Any:
        """Return a transaction to read the keys of the commit's parts, for `refusal`."""
        reads = [*map(_inspect, self._parts, self._keys), *map(_first_key, self._directory_keys), *self._last]
        return _rpc.TxnRequest(success=reads)

    def refusal(self, answer: Any) -> Refused | None:
        """Return the commit's refusal as of the *answer* to `inspection`, or None if the commit would now be applied.

        Raise MisplacedKeyError if a key conflicts with a directory.
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
    """Return the directories of new keys, without directories already proven by other parts."""
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
        return {"target": _COMPARE_CREATE, "key": key, "range_end": range_end(key), "create_revision": 0}
    version = None if isinstance(part, Exists) else part.version
    if version is None:
        return {"result": _COMPARE_GREATER, "target": _COMPARE_CREATE, "key": key, "create_revision": 0}
    # etcd reports modification revision 0 for an absent key, so version 0 must not match.
    return {"target": _COMPARE_MOD, "key": key, "mod_revision": int(version) or -1}


def _absent(key: bytes) -> Message:
    return {"target": _COMPARE_CREATE, "key": key, "create_revision": 0}


def _inspect(part: Part, key: bytes) -> Message:
    """Read the part's key. For a new key also look for the first key below."""
    return _first_key(key, range_end(key) if isinstance(part, Create) else b"")


def _first_key(key: bytes, end: bytes = b"") -> Message:
    return {"request_range": {"key": key, "range_end": end, "limit": 1, "keys_only": True}}


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
