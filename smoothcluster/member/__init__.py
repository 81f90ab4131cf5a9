"""One member of a group: the loop that joins, claims, works, rebalances and leaves.

One thread owns the member. Watches, the failure detector and the handler pool only wake that thread. `loop.MemberLoop`
lives as long as the process; an `incarnation.Incarnation` lives as long as one lease::

    joining --joined--> standing by <--seat taken or closed--> running --asked to leave--> leaving --> gone
    standing by or running --lease lost--> joining, as a new incarnation

Each turn of the loop: read the group if there is a reason to, make at most one move (`claims`, `rebalancing`,
`adoption`), then start tasks and record outcomes (`smoothcluster.work`).

Invariants: a member that may have lost its lease starts no task, by its own clock; a move is a guarded commit; a
handover never takes a survivor past its capacity, and never raises its concurrency.

On failure: while the store is away, running tasks finish and their outcomes wait in bounded memory. A lost lease ends
the incarnation, and the loop joins again under the same name. After a rollback of the store, `rollback` finds the
shards that differ.

Begin reading with `loop.MemberLoop.step`, then `incarnation.Incarnation.turn`.
"""
