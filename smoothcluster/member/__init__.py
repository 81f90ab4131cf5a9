"""One member of a group: the loop joins, claims, works, rebalances and leaves.

One thread owns the member. Watches, the failure detector and the handler pool only wake this thread. `loop.MemberLoop`
lives as long as the process; an `incarnation.Incarnation` lives as long as a lease::

    joining --joined--> standing by <--seat taken or closed--> running --asked to leave--> leaving --> gone
    standing by or running --lease lost--> joining, as a new incarnation

Each turn of the loop: read the group if there is a reason, try the first move due (`claims`, `adoption`), start tasks
and record outcomes (`smoothcluster.work`), then transfer shards without running tasks (`rebalancing`).

Invariants: from the moment when the lease may have run out by the member's own clock, the member starts no task. Each
move is a guarded commit. A handover never takes a survivor past the declared capacity, and never raises the number of
tasks running at once.

On failure: while the store is away, running tasks finish and their outcomes wait in bounded memory. A lost lease ends
the incarnation, and the loop joins again under the same name. After a rollback of the store, `rollback` reports the
rollback and finds the shards with lost commits. After a missed wake-up, `task_search` finds the tasks.

Begin reading with `loop.MemberLoop.step`, then `incarnation.Incarnation.step`.
"""
