"""An in-memory store: the contract of a backend in executable form, for tests, simulation and trials.

Within a process, all backends connected to the same URL (``memory://NAME``) are clients of the same `MemoryStore`.
Processes of a machine share a store through a server and a Unix socket (``memory:///path/to/socket``)::

    one process:       MemoryBackend --> MemoryStore (store) --> Tree (tree): keys and directories
                                                            +--> Watches (watches): wake-ups

    several processes: SocketBackend (remote) --> requests (connections) --+
                                             +--> watches (remote_watches) +-- Unix socket, frames (wire)
                                                                           |
                       MemoryServer (server) <-- a thread, or python -m smoothcluster.memory PATH
                         +--> served_client, for each connection --> MemoryStore

Invariants:

- The store promises no more than the contract. Unless the `Guarantees` say otherwise, the store is as weak as
  ZooKeeper in the dangerous places: a key created again starts over at an old version, keys created in one commit
  have equal `Entry.created`, and a watch does not report keys deeper down.
- A key holds bytes or is a directory. A commit that would make a key both raises MisplacedKeyError.
- The store is deterministic: ids are counted, and time comes from the clock passed in.
- Behind a socket, the ids and versions of each server begin at a random number, because clients outlive servers.

On failure: all data end with the process that holds the store. While the server is away, a `SocketBackend` raises
UnavailableError if nothing was sent. If a commit was sent and no answer came, the outcome is unknown
(OutcomeUnknownError). Later calls connect again. The client repeats all watches on the new connection, and each watch
wakes, because changes may have been missed. The server closes a connection that sends malformed frames.

Begin reading with `store`, then `server` and `wire`.
"""

from smoothcluster.memory.backend import MemoryBackend, MemoryLease
from smoothcluster.memory.remote import SocketBackend
from smoothcluster.memory.store import WEAKEST, MemoryStore, Past
from smoothcluster.memory.tree import Applied, Tree

__all__ = ["WEAKEST", "Applied", "MemoryBackend", "MemoryLease", "MemoryStore", "Past", "SocketBackend", "Tree"]
