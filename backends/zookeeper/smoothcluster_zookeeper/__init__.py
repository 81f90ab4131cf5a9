"""smoothcluster on ZooKeeper 3.6 or newer, through kazoo: the package of `ZookeeperBackend`.

The adapter maps the contract of `smoothcluster.backend` to ZooKeeper as follows.

==================  ==================================================================================================
the contract        ZooKeeper
==================  ==================================================================================================
key ``a/b``         znode ``<chroot>/<namespace>/a/b~``; the directory ``a`` is the znode ``a`` (module ``layout``)
version             the znode's data version. The count starts over at 0 when a key is deleted and created again.
                    After a rollback also the client's era
``Entry.created``   the znode's ``czxid``, the number of the creating transaction
commit              a single transaction (``multi``): checks, creations, updates, deletions (``transaction``)
lease               a session of its own, represented by an ephemeral znode in ``~leases`` (``lease``)
key on a lease      an ephemeral znode of the lease's session
watch               ZooKeeper's persistent watches on the key and the directory, with values on everything below the
                    directory; a thread arms them again after a lost connection (``watches``)
``sync``            ``sync`` on the root znode. Other reads may lag, but never go back (``connection``, ``reads``)
==================  ==================================================================================================

A backend has one session for everything except leases, and one more session for each lease. The states of a session::

                     +--- silence, failed server ---+
                     v                              |
    created --> connecting ---------------> connected --- close ---> closed (the servers delete the lease's keys)
                     |                              |
                     | the servers ended the        +-- abandon --> dropped (the session expires on the servers)
                     | session or denied access
                     v
                   lost: final. `Connection` opens another session; a lease never comes back

Invariants:

* Nothing keeps a lease's session alive except ``renew`` and commits with keys on the lease: no pings, no reads.
* A commit with keys on a lease goes through the lease's session, and checks the lease's znode in the transaction.
* A lost session is never replaced behind a lease's back: kazoo's automatic sessions are off (``driver``).
* The backend never reads a state older than an earlier answer: a session on a server that lags sends ``sync`` first.
* A key is never both bytes and a directory: a stand-in znode beside each directory takes the key's name (``layout``).
* Watches are armed first and notified second, so a reader who reads after the notification misses nothing.

On failure:

* *A server fails or is silent.* The session moves to another server. A call without an answer raises
  ``OutcomeUnknownError`` if the call was a commit, a grant, a renewal or a revocation, and otherwise
  ``UnavailableError``. After the reconnect the thread of the watches arms every watch again and notifies every owner.
* *No server can be reached.* Calls raise ``UnavailableError`` at the timeout. A holder must take a lease for lost after
  ``ttl`` without a renewal.
* *The session for reads and commits expires.* The next call opens another session.
* *A lease's session expires.* The servers delete the lease's keys. ``renew`` returns False, and commits on the
  lease raise ``LeaseLostError``.
* *The store is older than before*, emptied or restored from a backup. The servers refuse a session that names the
  state last seen, so the session connects without (``driver``). Then a transaction id below an earlier answer shows the
  rollback (``connection``), and versions from before are refused. Watches are armed again after the reconnect anyway.
* *Failover of ZooKeeper's leader.* No acknowledged commit is lost, so versions stay valid.

Begin reading in ``adapter``, then ``session``, ``transaction``, ``lease`` and ``watches``. Only ``driver`` touches
kazoo's internals.
"""

from smoothcluster_zookeeper.adapter import ZookeeperBackend

__all__ = ["ZookeeperBackend"]
