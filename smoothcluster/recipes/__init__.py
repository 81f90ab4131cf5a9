"""Recipes that work on every store: a session that keeps a lease alive, and a fair lock.

`session` holds a lease and renews it in the background, as a heartbeat. `lock` queues contenders by creation and gives
the holder a fencing token. Both are written once, on `smoothcluster.backend` alone.

A lease has four states, seen from the process that holds it::

    held --renewal answered--> held
    held --no answer before the local deadline--> unknown --answered in time--> held
    held or unknown --the store ended the lease--> lost

Not safe: between the expiry in the store and the moment when the holder notices, two processes may both believe that
they hold the lock. Pass the fencing token, or the lock's condition, with every write that the lock protects.

Begin reading with `session.Session`, then `lock.Lock`.
"""
