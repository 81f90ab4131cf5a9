"""Recipes on top of every store: `Session`, a lease kept alive by heartbeats, and `Lock`, a fair distributed lock.

`Session` holds a lease and renews the lease in the background (heartbeat). `Lock` queues contenders in the order of
their arrival and gives each holder a fencing token. Both recipes use `smoothcluster.backend` alone, so a backend
implements neither of the two::

    from smoothcluster.recipes import Lock, Session

A lease has four states, seen from the process that holds the lease::

    held --renewal answered--> renewed
    held or renewed --no answer before the local deadline--> unknown --answered in time--> renewed
    any of these --the store ended the lease, or the session was closed--> lost

Invariants:

- While `Session.held` is true, the store still has the lease: the session counts the granted time by the local
  monotonic clock, from before the last successful renewal was sent.
- The oldest entry in the queue holds the lock, and a later holder has a larger token.

On failure: the store may end a lease before the holder notices, and a paused process may act late. For that moment two
processes believe that they hold the lock. So pass the lock's condition, or the fencing token, with every write that
the lock protects.

Begin reading with `session.Session`, then `lock.Lock`.
"""

from smoothcluster.recipes.lock import Lock
from smoothcluster.recipes.session import Session

__all__ = ["Lock", "Session"]
