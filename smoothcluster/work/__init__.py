"""The work on one shard: what waits, what runs, what is to be recorded, in one commit at a time."""

from smoothcluster.work.backlog import place_of
from smoothcluster.work.context import SentTasks, WorkContext
from smoothcluster.work.shard_work import ShardWork, shard_of

__all__ = ["SentTasks", "ShardWork", "WorkContext", "place_of", "shard_of"]
