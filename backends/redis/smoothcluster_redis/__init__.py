"""smoothcluster on Redis 7.0 or newer, a server, a primary with Sentinels, or a Redis Cluster: `RedisBackend`.

The adapter maps the contract of `smoothcluster.backend` to Redis as follows. Every read and every change is one run of
the Lua script ``store.lua``, and Redis runs no other command in between.

==================  ==================================================================================================
the contract        Redis
==================  ==================================================================================================
part (`for_group`)  all Redis keys with the prefix ``{<namespace>/<group>}:``, so one slot of a Redis Cluster
key                 a field of the hash ``values``; version, creation and lease are in the hash ``marks``
directory           a set of names, ``children:<directory>``, which exists while a key lies below
version             ``<number of the commit>-<number with which the history begins>``
``Entry.created``   the number of the creating commit
commit              conditions, then changes, in one run of the script
lease               an end on the store's own lease clock (``leases``), and the set of its keys (``lease:<id>``)
watch               the Redis stream ``stream``, with an entry for each commit, read by a thread (``watches``)
``sync``            nothing to do: the server that takes the commits answers the reads
`HasHistory`        the identity of the server process and of the replication, compared by the script
==================  ==================================================================================================

Each part has connections of its own. The states of a connection::

    connect --> "hello": the script compares the server process with the process recorded in ``meta``
                   |
                   | another process or a promoted replica: first, the script begins a new history
                   v
                 idle --- command ---> in use --- no answer, or the server is no longer the primary ---> closed,
                  |  ^                   |                                                               and with it
                  |  +-- answer, refusal +                                                               all that are
                  +--- closed by the server: noticed before the next command ------------------------->  idle

Invariants:

* No command is repeated after a missing answer: redis-py's retries are off, and a connection never reconnects.
* No other command goes over a new connection before "hello", so no commit passes in a history that was lost.
* No version and no number of a commit is ever given twice, not even after a loss.
* The lease clock never goes back, and advances by at most half a second between two commands. The store keeps a lease
  for a second longer than ``ttl``, so a pause or a clock change of the server ends no lease early (``lease``).
* The stream has an entry for every number, so the reader notices trimmed entries, and then wakes every watcher.

On failure:

* *The server is away.* Calls raise ``UnavailableError``, or ``OutcomeUnknownError`` if a change was sent. The next call
  looks for the primary again, at the Sentinels if any. The lease clock stands still meanwhile.
* *Failover or restart.* The last acknowledged commits may be lost. The script begins a new history: every version read
  before is refused, numbers jump, every remaining lease gets its full time, and all watchers wake. ``history``
  changes, and the core recovers from the rollback.
* *A slot of the cluster moves.* Calls raise ``UnavailableError``; the next connection follows the redirection.
* *A lease expires.* The next command to the part deletes the lease's keys. The thread of the watches sends such a
  command several times a second.

Begin reading in ``adapter``, then ``store.lua``, ``servers``, ``connection`` and ``watches``.
"""

from smoothcluster_redis.adapter import RedisBackend

__all__ = ["RedisBackend"]
