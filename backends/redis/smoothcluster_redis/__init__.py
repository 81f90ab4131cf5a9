"""Groups on Redis."""

from smoothcluster_redis.adapter import RedisBackend

__all__ = ["RedisBackend"]
