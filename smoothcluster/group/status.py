"""The status of a group, as a dictionary for people and scripts."""

from collections import Counter
from collections.abc import Container, Mapping
from typing import Any

from smoothcluster.group.election import role_of
from smoothcluster.group.view import View
from smoothcluster.records.group import Spec
from smoothcluster.records.job import Job
from smoothcluster.records.shard import COUNT_NAMES, NOTE_NAMES


def group_status(
    group: str, view: View, silent: Container[str], jobs: Mapping[str, Job], garbage: Mapping[str, str]
) -> dict[str, Any]:
    """The state of the group in *view*, in the shape printed by ``status --json``.

    *silent* has the incarnations whose leases have not been renewed in time.
    """
    return {
        "group": group,
        "spec": numbers_of(view.spec.record),
        "members": _members(view, silent),
        "tasks": _tasks(view, jobs),
        "jobs": {name: job.state for name, job in jobs.items()},
        **{what: counts for what in NOTE_NAMES if (counts := _noted(what, view, jobs))},
        "unassigned": _unassigned(view),
        "breaker": "open" if view.breaker.record.open else "closed",
        "garbage": dict(garbage),
    }


def _tasks(view: View, jobs: Mapping[str, Job]) -> dict[str, int]:
    """Sums over all jobs from the counts: of the shards, or of the job's record for finished jobs."""
    total: Counter[str] = Counter(written=sum(job.tasks for job in jobs.values()))
    finished = {name: job for name, job in jobs.items() if job.ended}
    for job in finished.values():
        total.update({what: getattr(job, what) for what in COUNT_NAMES})
    for shard in (read.record for read in view.shards if read is not None):
        for name, tally in shard.counts.items():
            total.update(tally if name not in finished else {})
        total["running"] += sum(chunk.run.bit_count() for chunk in shard.open.values())
    ended = total["skipped"] + total["done"] + total["failed"] + total["quarantined"] + total["cancelled"]
    pending = total["written"] + total["added"] - ended - total["running"]
    shown = ("running", "done", "failed", "quarantined", "skipped")
    cancelled = {"cancelled": total["cancelled"]} if total["cancelled"] else {}
    return {"pending": max(0, pending)} | {what: total[what] for what in shown} | cancelled


def _noted(what: str, view: View, jobs: Mapping[str, Job]) -> dict[str, int]:
    """The count *what* of each job that has any."""
    counts = {name: getattr(job, what) for name, job in jobs.items() if job.ended}
    for shard in (read.record for read in view.shards if read is not None):
        for name, tally in shard.counts.items():
            if name in jobs and not jobs[name].ended:
                counts[name] = counts.get(name, 0) + tally.get(what, 0)
    return {name: count for name, count in counts.items() if count}


def numbers_of(spec: Spec) -> dict[str, int | None]:
    """The numbers of a group by name."""
    return {"runner": spec.runner, "backup": spec.backup, "shards": spec.shards}


def _members(view: View, silent: Container[str]) -> list[dict[str, object]]:
    seated = view.seated()
    return [
        {
            "name": member.name,
            "role": str(role_of(view, member.incarnation)),
            "seat": seated.get(member.incarnation),
            "shards": len(view.owned(member.incarnation)),
            "host": member.host,
            "pid": member.pid,
            "running": member.running,
            "silent": member.incarnation in silent,
            "suspects": "apart" if member.apart else "alone",
            "capacity": member.capacity,
            "unfit": member.unfit,
            "checked": member.checked,
            "results_wait": member.results_wait,
        }
        for member in sorted(view.living().values(), key=lambda member: member.place)
    ]


def _unassigned(view: View) -> list[int]:
    """The unassigned shards: without a living owner, or with a garbage record."""
    living = view.living()
    return [n for n, read in enumerate(view.shards) if read is None or read.record.owner not in living]
