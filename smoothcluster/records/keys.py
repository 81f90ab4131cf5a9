"""Keys of a group: the place of each record in the store."""


class Keys:
    """Where each record of a group lies."""

    __slots__ = ("_group", "breaker", "jobs", "members", "quarantine", "seats", "shards", "spec")

    def __init__(self, group: str) -> None:
        self._group = group
        self.spec = f"{group}/spec"
        self.breaker = f"{group}/breaker"
        self.members = f"{group}/members"
        self.seats = f"{group}/seats"
        self.shards = f"{group}/shards"
        self.jobs = f"{group}/jobs"
        self.quarantine = f"{group}/quarantine"

    def member(self, incarnation: str) -> str:
        return f"{self.members}/{incarnation}"

    def seat(self, number: int) -> str:
        return f"{self.seats}/{number}"

    def shard(self, number: int) -> str:
        return f"{self.shards}/{number}"

    def job(self, job: str) -> str:
        return f"{self.jobs}/{job}"

    def tasks(self, shard: int) -> str:
        return f"{self._group}/tasks/{shard}"

    def chunk(self, shard: int, name: str) -> str:
        return f"{self._group}/tasks/{shard}/{name}"

    def seen(self, job: str, shard: int) -> str:
        return f"{self._group}/seen/{job}/{shard}"

    def results(self, job: str, shard: int) -> str:
        return f"{self._group}/results/{job}/{shard}"

    @property
    def all_results(self) -> str:
        """The folder of all jobs' results, with the slash."""
        return f"{self._group}/results/"

    def tail(self, job: str, shard: int) -> str:
        return f"{self._group}/tails/{job}/{shard}"

    def quarantined(self, number: str) -> str:
        return f"{self.quarantine}/{number}"

    def events(self, member: str) -> str:
        return f"{self._group}/events/{member}"

    @property
    def all_events(self) -> str:
        return f"{self._group}/events"


def last_part(key: str) -> str:
    """The part of a key behind the last slash."""
    return key.rpartition("/")[2]
