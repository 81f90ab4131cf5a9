"""The contract in executable form: a store inside this process, for tests, simulation and trials.

It promises no more than the contract does. Unless its `Guarantees` say otherwise it is as weak
as ZooKeeper where that bites: a key made again starts over at an old version, keys made in one
commit tie in `Entry.created`, a watch does not hear of keys deeper down. A key holds bytes or
is a directory: a commit that would make it both raises MisplacedKeyError.

It is deterministic: ids are counted, and time comes from the clock it is given.

Processes share one through `smoothcluster.memory.server.MemoryServer`, each as a `SocketBackend`.
"""

from smoothcluster.memory.backend import MemoryBackend, MemoryLease
from smoothcluster.memory.remote import SocketBackend
from smoothcluster.memory.store import WEAKEST, MemoryStore, Past
from smoothcluster.memory.tree import Applied, Tree

__all__ = ["WEAKEST", "Applied", "MemoryBackend", "MemoryLease", "MemoryStore", "Past", "SocketBackend", "Tree"]
