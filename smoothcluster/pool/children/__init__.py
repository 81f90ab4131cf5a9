"""Child processes for tasks that may kill their process.

A member runs suspects, and with `Isolation` every task, in children. `process` starts a child and talks to
the child over a socket (`messages`); `main` is the child's side; `handler_ref` names the handler so that a fresh Python
can import the same function.

Invariants: children are spawned, never forked, because a forked child would hold the member's port open. A permanent
thread spawns them (`spawner`), because the kernel's parent-death signal fires when the spawning *thread* ends.

On failure: the death of a child is the outcome of the task in the child, never of the member. If the member dies, its
children end with it.

Begin reading with `pool.Children`, then `process` and `main`.
"""
