"""The records of a group: the place of each one in the store, its fields, and how it is written and read.

==============================  ==========================================================================
``spec``                        the numbers of the group (`group.Spec`)
``breaker``                     recent deaths, and whether the circuit breaker is open (`breaker.Breaker`)
``members/<incarnation>``       on the member's lease (`group.Member`)
``names/<name>``                on the member's lease: the incarnation that has the name
``joining/<incarnation>``       on the member's lease: a joining member that waits for an index
``seats/<n>``                   persistent: the holder of each licence to be a Runner (`group.Seat`)
``shards/<n>``                  persistent, never deleted: the fence (`shard.Shard`)
``jobs/<id>``                   one for each submit (`job.Job`); of a deleted job, the tombstone
``control/<job>``               marks a job that is being cancelled or deleted: members run and add nothing of it
``tasks/<shard>/<job>-<chunk>`` tasks that wait or run (`smoothcluster.jobs.chunks`)
``queue/<shard>/<job>-q<n>``    tasks that wait, merged by the shard's owner (`smoothcluster.work.frontier`)
``seen/<job>/<shard>/<n>``      digests of the task ids of a job
``results/<job>/<shard>/<n>``   recorded outcomes (`results`)
``quarantine/<id>``             tasks that kill their process, with the evidence (`quarantine`)
``events/<member>/<n>``         a ring of events for each member (`smoothcluster.group.events`)
==============================  ==========================================================================

Invariants: a record in the store is data from a stranger. `from_json` checks every field and raises `GarbageError`;
callers report garbage and go on. A shard's record is the only fence: every claim and every progress commit compares
and sets it, and its ``epoch`` rises with every change of owner.

On failure: a record that cannot be read is reported by key. An unreadable shard is left alone, an unreadable seat is
free, an unreadable spec is fatal, because the group has no numbers without it.

Begin reading with `keys.Keys`, then `shard.Shard`.
"""
