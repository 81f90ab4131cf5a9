"""``smoothcluster doctor``: measure a store from here, and check which promises of the library hold on the store."""

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median

import click

from smoothcluster.backend import Committed, CoordinationBackend, Create, Delete, Guarantees, HasHistory, Update
from smoothcluster.cli.common import STORE_RETRY_SECONDS, Exit, Failure, opened, verbose
from smoothcluster.cli.formatting import table
from smoothcluster.cli.logs import adapter_logging_to_stderr
from smoothcluster.cli.output import json_text, print_data
from smoothcluster.cli.store_limits import Limit, probe_limits
from smoothcluster.clock import SYSTEM_CLOCK
from smoothcluster.registry import masked
from smoothcluster.retry import patiently

MEASUREMENT_REPETITIONS = 20
"""Repetitions of each measurement. The result is the median."""

USUAL_TTL_SECONDS = 10.0
"""The default lease of members, in seconds."""

_STORE_DEPENDENT_PROMISES = (
    "never more Runners than seats",
    "one owner for each shard; a replaced one writes nothing",
    "one recorded outcome for every task",
)
"""The promises of the library with a verdict by the store's guarantees."""

_EFFECTS_OF_LOST_COMMITS = (
    "members still connected to a replaced primary hold seats of their own for a while",
    "after a failover the store refuses versions read before, but may have lost the last writes",
    "tasks whose outcomes a failover or restart lost run again; repeat a submit made just before",
)
"""The consequence for each of these promises if a store may lose its latest acknowledged writes."""

VERDICT_HELD, VERDICT_WEAKER, VERDICT_NOT_HELD = "held", "weaker", "not held"


@dataclass(frozen=True, slots=True)
class Promise:
    """A promise of the library, and whether the promise holds on this store."""

    what: str
    verdict: str
    why: str


@dataclass(frozen=True, slots=True)
class Measured:
    """The measured times and lease lengths of a store, as a member on this machine would meet them."""

    read_ms: float
    commit_ms: float
    watch_ms: float | None
    """From a commit to the wake-up; None if no wake-up came."""
    granted_s: float
    """Granted for a requested lease of 10 seconds."""
    shortest_s: float
    """The shortest lease granted by the store."""
    history: str | None = None
    """The id of the store's present history, for stores that can report a rollback."""


@click.command()
@click.argument("url", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object, for scripts.")
@verbose
def doctor(url: str | None, as_json: bool) -> None:  # noqa: FBT001  # an option
    """Test a store, and print which promises hold on the store.

    URL has the form of --backend in other commands. The command writes a few megabytes under keys of its own and
    removes them again. The exit status is 1 if a promise does not hold.
    """
    with opened(url) as backend, adapter_logging_to_stderr(backend) as warnings:
        patiently(SYSTEM_CLOCK, STORE_RETRY_SECONDS, backend.sync)
        measured = measure(backend)
        guarantees, warned = backend.guarantees, list(warnings)
        limits = probe_limits(backend, guarantees)  # The adapter may warn of these limits, too.
        where, advice = masked(backend.url), backend.limits_advice
    promises = [*assess(guarantees, measured, warned), assess_limits(limits, advice)]
    if as_json:
        found = {"url": where, "measured": asdict(measured), "guarantees": asdict(guarantees), "warnings": warned}
        lists = {"limits": [*map(asdict, limits)], "promises": [*map(asdict, promises)]}
        print_data(json_text(found | lists))
    else:
        for line in report(where, guarantees, measured, promises):
            print_data(line)
    if any(promise.verdict == VERDICT_NOT_HELD for promise in promises):
        raise Failure(f"not every promise holds on {where}; the list says which and why", Exit.FAILED)


def measure(backend: CoordinationBackend) -> Measured:
    """Measure the operations that groups rely on, under a key unknown to other clients."""
    root = f"doctor-{secrets.token_hex(8)}"
    key = f"{root}/key"
    version = _done(backend.commit([], [Create(key, b"0")]))[key]
    try:
        read = _milliseconds(lambda: backend.get(key))

        def change() -> None:
            nonlocal version
            version = _done(backend.commit([], [Update(key, b"1", version)]))[key]

        history = backend.history() if isinstance(backend, HasHistory) else None
        return Measured(read, _milliseconds(change), _watched(backend, root, change), *_granted(backend), history)
    finally:
        backend.commit([], [Delete(key)])


def _done(result: object) -> Mapping[str, str]:
    assert isinstance(result, Committed), "no other client knows the key"
    return result.versions


def _milliseconds(act: Callable[[], object], times: int = MEASUREMENT_REPETITIONS) -> float:
    taken: list[float] = []
    for _ in range(times):
        began = SYSTEM_CLOCK.monotonic()
        act()
        taken.append(SYSTEM_CLOCK.monotonic() - began)
    return round(median(taken) * 1000, 3)


def _watched(backend: CoordinationBackend, path: str, change: Callable[[], None]) -> float | None:
    woken = SYSTEM_CLOCK.signal()
    watch = backend.watch(path, woken.set)
    try:
        delays: list[float] = []
        for _ in range(5):
            SYSTEM_CLOCK.sleep(0.05)  # Late wake-ups of the previous change must not count for the next change.
            woken.clear()
            began = SYSTEM_CLOCK.monotonic()
            change()
            if not woken.wait(STORE_RETRY_SECONDS):
                return None
            delays.append(SYSTEM_CLOCK.monotonic() - began)
        return round(median(delays) * 1000, 3)
    finally:
        watch.close()


def _granted(backend: CoordinationBackend) -> tuple[float, float]:
    granted: list[float] = []
    for asked in (USUAL_TTL_SECONDS, 0.001):
        lease = backend.lease(asked)
        granted.append(lease.ttl)
        lease.revoke()
    return granted[0], granted[1]


def assess(promised: Guarantees, measured: Measured, warnings: Sequence[str] = ()) -> Iterator[Promise]:
    """Yield each promise of the library with the verdict for a store with these guarantees and measurements."""
    if not promised.linearizable_writes:
        verdict, whys = VERDICT_NOT_HELD, 3 * ("commits have no single order, so two members may win the same claim",)
    elif not promised.survives_failover:
        verdict, whys = VERDICT_WEAKER, _EFFECTS_OF_LOST_COMMITS
    else:
        verdict, whys = VERDICT_HELD, 3 * ("commits have a single order, and the store keeps them",)
    for what, why in zip(_STORE_DEPENDENT_PROMISES, whys, strict=True):
        yield Promise(what, verdict, why)
    yield Promise(
        "no task is started on a lease that may be over",
        VERDICT_HELD,
        f"the store grants {measured.granted_s:.3g} s for a lease of 10 s",
    )
    if measured.watch_ms is None:
        yield Promise(
            "all is taken over and finished",
            VERDICT_WEAKER,
            "watches do not wake, so members notice changes by polling only",
        )
    else:
        yield Promise(
            "all is taken over and finished", VERDICT_HELD,
            f"within moments if members see a death, otherwise after {measured.granted_s:.3g} s",
        )  # fmt: skip
    yield Promise("no two machines' clocks are compared", VERDICT_HELD, "no decision of the library compares clocks")
    if warnings:  # Adapters warn of stores that may come back with another state.
        yield Promise("nothing is lost while the store is away", VERDICT_WEAKER, "; ".join(warnings))
    else:
        yield Promise("nothing is lost while the store is away", VERDICT_HELD, "outcomes wait in the members meanwhile")


def assess_limits(limits: Sequence[Limit], advice: str) -> Promise:
    """Return whether the store takes commits as large as the library builds; *advice* is for a server that does not."""
    lower = [
        f"{limit.name} is {limit.found}, and should be {limit.promised} at least" for limit in limits if limit.lower
    ]
    what = "every commit of the library fits"
    if not lower:
        return Promise(what, VERDICT_HELD, "the store takes values and commits of the largest promised sizes")
    said = next(limit.said for limit in limits if limit.lower)
    return Promise(
        what, VERDICT_NOT_HELD, "; ".join([*lower, *([advice] if advice else []), f"the store said: {said}"])
    )


def report(where: str, promised: Guarantees, measured: Measured, promises: list[Promise]) -> Iterator[str]:
    """Yield the lines for people."""
    yield f"{where}"
    yield ""
    woken = "never" if measured.watch_ms is None else f"{measured.watch_ms} ms"
    yield f"a read takes {measured.read_ms} ms, a commit {measured.commit_ms} ms, a watch wakes after {woken}"
    yield f"leases last from {measured.shortest_s:.3g} s to {_length(promised.longest_ttl)}"
    yield f"a commit: up to {promised.largest_commit} bytes, {promised.most_operations} operations"
    yield f"a directory: up to {promised.largest_directory} keys; a client: up to {promised.most_watches} watches"
    if measured.history is not None:
        yield f"the store's present history: {measured.history}"
    yield ""
    yield from table(("PROMISE", "", "WHY"), [[each.what, each.verdict, each.why] for each in promises])


def _length(seconds: float) -> str:
    """Write a time for people: in days or years if longer than a day."""
    if seconds > 86_400:
        return "a year and more" if seconds >= 365 * 86_400 else f"{seconds / 86_400:.0f} days"
    return f"{seconds:g} s"
