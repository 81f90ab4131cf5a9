"""Coordination for clusters of crawlers: Runners do the work, Backup Runners take over.

Crawler processes form a *group*. Leader election gives some members a *seat*: these members are Runners and work
through tasks. All other members are Backup Runners and stand by. When a Runner dies, another member takes over the
Runner's tasks (failover). Members coordinate through a store alone: ZooKeeper, etcd, Redis, sqlite, or memory::

    submit, results, status                    a task: handler(task, context)
             |                                            |
    +--------v---------+   +----------------------------- v ------------------+
    | cluster: Cluster |   | crawler: ClusterCrawler, a member of the group   |
    | (the client)     |   |   member/            joining, claims, takeover   |
    |   jobs/          |   |   work/              tasks of the owned shards   |
    |                  |   |   pool/              handlers, child processes   |
    |                  |   |   failure_detector/  proofs of death by TCP      |
    +--------+---------+   +-----------------------------+--------------------+
             |    group/    pure decisions on a snapshot |
             |    records/  the records in the store     |
             |    recipes/  leases with heartbeats, locks|
    +--------v-------------------------------------------v--------------------+
    | backend: CoordinationBackend (get, list, commit, lease, watch)          |
    +-------------------------------------------------------------------------+
      adapters: zookeeper, etcd, redis, sqlite; memory/ for tests

A module imports only modules of lower layers: ``pyproject.toml`` lists the layers and ``lint-imports`` checks them.
`smoothcluster.cli` is the command line, `smoothcluster.testing` checks adapters and simulates whole groups.

The promises, each with tests (``docs/explanation/promises.md``):

- P1: At most ``runner`` members hold a seat at any moment.
- P2: A shard has a single owner. The store refuses every later write of a replaced owner (fencing token).
- P3: Every submitted task ends in exactly one recorded outcome. Handlers run at least once.
- P4: A member starts no more tasks once the lease may have run out.
- P5: A task that kills its process takes down one member at most, and is then quarantined (dead-letter list).
- P6: A handover never exceeds a survivor's capacity.
- P7: When faults stop, the group converges: seats are filled, shards are owned, tasks end.
- P8: No decision compares the clocks of two machines.
- P9: While the store is away, members keep outcomes in bounded memory, and commit them on return.

Begin reading with ``docs/explanation/architecture.md``: a picture of the processes, and the path of a task, a takeover
and a commit through the code. In the code, begin with `smoothcluster.backend`, then `smoothcluster.crawler`.

The package imports each name at the first use, because Python imports this module before every command's first line
(decision 24).
"""

TYPE_CHECKING = False  # True for type checkers. Importing the real constant takes longer than this whole module.
if TYPE_CHECKING:
    from smoothcluster.cluster import Cluster
    from smoothcluster.crawler import ClusterCrawler
    from smoothcluster.group.breaker import Pacing
    from smoothcluster.jobs.handle import JobHandle
    from smoothcluster.jobs.progress import Progress
    from smoothcluster.model import Evidence, Outcome, Role, State, Task, TaskContext
    from smoothcluster.options import Isolation, Retries
    from smoothcluster.registry import connect
    from smoothcluster.zookeeper_crawler import ZookeeperCrawler
else:

    def __getattr__(name: str) -> object:
        home = _HOME_MODULES.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        globals()[name] = value = getattr(import_module(f"{__name__}.{home}"), name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


_HOME_MODULES = {
    "Cluster": "cluster",
    "ClusterCrawler": "crawler",
    "Evidence": "model",
    "Isolation": "options",
    "JobHandle": "jobs.handle",
    "Outcome": "model",
    "Pacing": "group.breaker",
    "Progress": "jobs.progress",
    "Retries": "options",
    "Role": "model",
    "State": "model",
    "Task": "model",
    "TaskContext": "model",
    "ZookeeperCrawler": "zookeeper_crawler",
    "connect": "registry",
}

__all__ = [
    "Cluster",
    "ClusterCrawler",
    "Evidence",
    "Isolation",
    "JobHandle",
    "Outcome",
    "Pacing",
    "Progress",
    "Retries",
    "Role",
    "State",
    "Task",
    "TaskContext",
    "ZookeeperCrawler",
    "connect",
]
