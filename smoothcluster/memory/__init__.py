"""An in-memory store: the contract in executable form, for tests, simulation and trials.

The store promises no more than the contract does. Unless the `Guarantees` say otherwise, the store is as weak
as ZooKeeper in the dangerous places: a key created again starts over at an old version, keys created in one
commit have equal `Entry.created`, a watch does not report keys deeper down. A key holds bytes or
is a directory: a commit that would make a key both raises MisplacedKeyError.

The store is deterministic: ids are counted, and time comes from the clock passed in.

Several processes share a store through `smoothcluster.memory.server.MemoryServer`, each as a `SocketBackend`.
"""

from smoothcluster.memory.backend import MemoryBackend, MemoryLease
from smoothcluster.memory.remote import SocketBackend
from smoothcluster.memory.store import WEAKEST, MemoryStore, Past
from smoothcluster.memory.tree import Applied, Tree

__all__ = ["WEAKEST", "Applied", "MemoryBackend", "MemoryLease", "MemoryStore", "Past", "SocketBackend", "Tree"]
