"""smoothcluster on etcd 3.4 or newer, through the gRPC stubs of python3-etcd3: the package of `EtcdBackend`.

The adapter maps the contract of `smoothcluster.backend` to etcd as follows.

==================  ==================================================================================================
the contract        etcd
==================  ==================================================================================================
key ``a/b``         the etcd key ``<namespace>/a/b/``: one range with this prefix holds the key and everything below
                    (module ``layout``)
version             the key's modification revision, never repeated. After a rollback also the client's era
``Entry.created``   the key's creation revision
commit              a transaction of comparisons and changes; after a refusal, a second one that reads the reason
                    (``transaction``)
lease               an etcd lease; a read of the leader's term confirms each renewal (``lease``)
key on a lease      a key put with the lease's id. Updates leave the lease of a key as it is
watch               a watch on the range of the key, all on one gRPC stream (``watches``)
``sync``            nothing to do: reads are linearizable, because etcd asks a majority
==================  ==================================================================================================

A backend uses one server at a time. The states of a server, as its backend sees the server::

    unproven --- answers a read ---> proven --- failed call, lost stream of watches ---+
       ^                                                                              |
       +------------------------- the backend moves to the next server <--------------+

Invariants:

* A change goes only to a proven server. So a change either finds no server, and was certainly not sent, or the outcome
  of a failure is unknown (``connection``).
* gRPC's retries are off. A change goes to another server only if certainly no server has applied the change.
* ``renew`` returns True only if no other leader was elected before the renewal: a read after the renewal shows the same
  term (``lease``).
* Each watch starts after the latest revision in any answer to this backend, however late the request reaches etcd.
  So arming needs no round trip.
* A key is never both bytes and a directory: the transaction compares the directories of new keys, as far as etcd's
  limit of comparisons allows (``transaction``).

On failure:

* *A server fails, is silent or has lost its leader.* The backend moves to the next server, within the same call if
  nothing was applied. A change without an answer raises ``OutcomeUnknownError``.
* *The stream of watches breaks.* The thread opens another stream, with growing delays, and each watch resumes after the
  last reported change. If etcd has compacted that revision, the watch wakes the owner.
* *No server can be reached.* Calls raise ``UnavailableError`` at the timeout.
* *A lease expires.* etcd deletes the lease's keys. ``renew`` returns False, and commits on the lease raise
  ``LeaseLostError``.
* *Failover of etcd's leader.* No acknowledged commit is lost. Every lease gets its full time again.
* *The store is older than before*, emptied or restored from a backup: the first answer to a read or transaction shows a
  lower revision or another cluster id. Versions from before are refused, and all watches begin again and wake.
* *The token expires.* The next call asks for another token; a refused watch is armed again on a new stream.

Begin reading in ``adapter``, then ``transaction``, ``connection``, ``lease`` and ``watches``.
"""

from smoothcluster_etcd.adapter import EtcdBackend

__all__ = ["EtcdBackend"]
