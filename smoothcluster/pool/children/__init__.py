"""Child processes for tasks that may kill their process.

A member runs suspects, and with `Isolation` every task, in children. `starter` starts children; `process` is a child
(`os_process`), to which the member talks over a socket (`messages`); `main` and `worker` are the child's side;
`handler_ref` names the handler so that a fresh Python can import the same function; `limits` makes the pool as the
user's options ask. The states of a child::

    spawned --the handler is imported--> idle --a task--> busy --outcome--> idle
       |                                  |                |
       |                                  |                +--timeout, memory, a kill--> dead: the task has died
       |                                  |                +--nonsense from the child--> dead: the task is blamed
       |                                  +--a kill from outside--> dead: a sign that kills come from outside
       +--the import fails--> dead: no child can run the handler

A task that runs *alone* gets a fresh child, beside a bystander without a task. If the bystander dies too, the kill came
from outside, and the task bears no blame.

Invariants:

- Children are spawned, never forked, because a forked child would hold the member's port open.
- A permanent thread spawns them (`spawner`), because the kernel's parent-death signal fires when the spawning *thread*
  ends.
- A child depends on no setting of the parent's process: signals, descriptors, the current folder, flags of Python.
- The parent trusts no bytes from a child, and waits for no child without a bound, except for the outcome of a handler
  without a timeout.
- A child runs one task at a time, except the *host* (`host`), which runs several suspects at once and stays warm for a
  takeover. No more tasks run in children than the member's concurrency.

On failure: the death of a child is the outcome of the task in the child, never of the member. If the member dies, its
children end with it. If no child can import the handler, suspects run alone in the member.

Begin reading with `pool.Children`, then `process` and `main`.
"""
