"""Work on owned shards: start tasks, and record outcomes, in one fenced commit at a time.

`workload.Workload` has all shards of a member, its handler pool, and the decision when a commit is due. `restarts` has
tasks that ran in a dead member started before all others. `shard_work.ShardWork` works on a single shard: `backlog` has
the tasks that wait, `seen_ids` the ids that each job has, `pauses` the tasks that wait for their next try, `suspects`
those that ran when their process died. `commit` builds the next commit from the `news`, and counts the `room` left and
the `added` tasks, which `quota` bounds. `closer` has the waiting tasks of cancelled jobs closed, by `closing`.
`sending` settles the commits, and `verdict` decides how a suspect may run. A task's states::

    waiting --admitted--> open --marked in the store--> running --outcome committed--> done, failed
    running --the process died--> suspect --run in a child--> done, failed, or dead again --> quarantined

Invariants: every commit compares and sets the shard's record, so a replaced owner records nothing. A task is marked in
the store before it starts. A commit whose outcome is unknown is sent again byte for byte, never rebuilt.

On failure: a commit larger than the store takes is built anew with half the limits, if the commit was never sent. A
single outcome that fits into no commit becomes a failure. After a refusal the owner reads the record. Its own commit id
there means that the commit happened; another owner means that the shard is lost, and its next owner runs again every
task without an outcome (at-least-once).

Begin reading with `workload.Workload.step`, then `shard_work.ShardWork.prepare`.
"""

from smoothcluster.work.backlog import place_of
from smoothcluster.work.context import WorkContext
from smoothcluster.work.quota import Quota
from smoothcluster.work.sent_tasks import SentTasks
from smoothcluster.work.shard_work import ShardWork, shard_of

__all__ = ["Quota", "SentTasks", "ShardWork", "WorkContext", "place_of", "shard_of"]
