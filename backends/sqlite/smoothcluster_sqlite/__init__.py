"""smoothcluster on a single sqlite file, for all processes of a machine, without a server: `SqliteBackend`.

The adapter maps the contract of `smoothcluster.backend` to sqlite as follows.

==================  ==================================================================================================
the contract        sqlite
==================  ==================================================================================================
key ``a/b``         the row of the table ``entries`` with directory ``a`` and name ``b``
version             the number of the commit that wrote the value. After a rollback also the client's era
``Entry.created``   the number of the creating commit
commit              one SQL statement: a row inserted into a temporary table, whose triggers check the conditions and
                    make the changes without leaving sqlite (``transaction``)
lease               a row of the table ``leases``, with an end on the lease clock in the file (the table ``clock``)
watch               a thread reads the list of changed keys (the table ``changes``), woken through a socket by each
                    committing process, and several times a second without a wake-up (``watches``, ``wakeups``)
``sync``            nothing to do: every process reads the same file
==================  ==================================================================================================

A backend has three connections to the file: for reads, for commits, and for leases, so a renewal never waits for a
commit. The states of a connection::

    closed --- first use ---> open --- every use: is this file still at the path? ---+
       ^                       ^                                                     |
       |                       +------------------- yes -----------------------------+
       +--- another file: opened again; a rollback: versions from before fail -------+
       +--- no file: ``UnavailableError`` until the file is back --------------------+

Invariants:

* A write is one statement, so no process holds the lock of the file while Python runs. Only the creation of the tables
  takes several statements.
* The lease clock never advances by more than the machine's monotonic clock, nor by more than a quarter of a second
  between two writes. So no lease ends early for a process that was stopped, a disk that hung, or a machine that slept.
* Every write first ends the due leases (except a lease that the write renews) and deletes their keys, and then acts.
* A commit is acknowledged after the disk has the data. Commits that change only keys on leases do not wait: such keys
  end with the machine.
* While a connection lives, only sqlite opens the file: to close another handle would drop the locks of the process.

On failure:

* *A process dies in the middle of a write.* The commit counts wholly or not at all, and the kernel frees the lock.
* *A process is stopped in the middle of a write.* Other writers raise ``UnavailableError`` at the timeout, which names
  the process; nothing was applied. Readers do not wait. No lease ends meanwhile.
* *The disk fails or is full during a write.* ``OutcomeUnknownError``: the data may count after a crash.
* *The machine restarts.* Every lease gets its full time again. Numbers jump, because the disk may lack the last
  commits of keys on leases, and no number may be given twice.
* *The file is replaced by another or an older copy*, or set back in place. Calls go on with the file at the path.
  Versions from before are refused, and every watch wakes.
* *A fork with the file open.* Every call in the child raises ``UsageError``: sqlite's locks do not survive a fork.

Begin reading in ``adapter``, then ``transaction``, ``connection``, ``watches`` and ``file``.
"""

from smoothcluster_sqlite.adapter import SqliteBackend

__all__ = ["SqliteBackend"]
