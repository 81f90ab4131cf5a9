"""smoothcluster on Redis: a server, a primary with Sentinels, or a Redis Cluster."""

from smoothcluster_redis.adapter import RedisBackend

__all__ = ["RedisBackend"]
