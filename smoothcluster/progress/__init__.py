"""The work on one shard: what waits, what runs, what is to be recorded, in one commit at a time."""

from smoothcluster.progress.backlog import place_of
from smoothcluster.progress.shard_work import ShardWork, shard_of
from smoothcluster.progress.terms import Sent, Terms

__all__ = ["Sent", "ShardWork", "Terms", "place_of", "shard_of"]
