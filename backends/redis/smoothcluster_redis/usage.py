"""How full a Redis server is: the server's memory, and the limit of the memory."""

import re

from redis.exceptions import ResponseError

from smoothcluster.backend import StoreUsage
from smoothcluster_redis.connection import StoreConnection


def read_usage(connection: StoreConnection, deadline: float) -> StoreUsage | None:
    """Return how full the server is; None if the user may not ask.

    Without ``maxmemory``, the memory of the server's machine is the limit.
    """
    try:
        info: bytes = connection.request(deadline, "INFO", "memory")
    except ResponseError:
        return None
    found = {name: int(number) for name, number in re.findall(r"(\w+):(\d+)\s", info.decode(errors="replace"))}
    used, most, machine = (found.get(name, 0) for name in ("used_memory", "maxmemory", "total_system_memory"))
    if most:
        return StoreUsage(used, most, "maxmemory of the Redis server")
    return StoreUsage(used, machine, "the memory of the Redis server's machine") if machine else None
