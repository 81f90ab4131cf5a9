"""The command: play many schedules, and stop at the first that breaks a promise."""

import logging
import os
import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from multiprocessing import get_context
from typing import TextIO

import click

from smoothcluster.clock import SYSTEM_CLOCK
from smoothcluster.testing.simulate.trouble import FAULTS
from smoothcluster.testing.simulate.world import Scenario, World, play

TAIL = 60
"""Lines shown of what led to a violation."""


@dataclass(frozen=True, slots=True)
class Played:
    """What became of one schedule; made for travelling between processes."""

    seed: int
    wrong: str | None
    counts: Counter[str]
    faults: Counter[str]


def try_schedule(seed: int, scenario: Scenario) -> tuple[Played, World | None]:
    """Play one schedule, whatever comes of it; the world, unless it could not even be made."""
    wrong, world = None, None
    try:
        world = play(seed, scenario)
    except Exception as error:  # noqa: BLE001 - a bug that raises is found as much as a promise that is broken
        wrong = f"{type(error).__name__}: {error}"
        world = getattr(error, "world", None)
    counts, faults = Counter[str](), Counter[str]()
    if world is not None:
        record = world.record
        counts.update(starts=record.starts, handovers=record.handovers, outcomes=len(record.outcomes))
        faults.update(world.trouble.done)
    return Played(seed, wrong, counts, faults), world


def _try(job: tuple[int, Scenario]) -> Played:
    logging.disable(logging.CRITICAL)
    return try_schedule(*job)[0]


@contextmanager
def _results(scenario: Scenario, seeds: Iterable[int], processes: int) -> Iterator[Iterator[Played]]:
    """What became of each schedule, in order, played in as many *processes*."""
    jobs = ((seed, scenario) for seed in seeds)
    if processes == 1:
        yield map(_try, jobs)
        return
    # Spawned, so that nothing of this process reaches a schedule.
    with get_context("spawn").Pool(processes) as pool:
        yield pool.imap(_try, jobs, chunksize=4)


def _faults(context: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in value.split(",") if name.strip())
    unknown = [name for name in names if name not in FAULTS]
    if unknown:
        raise click.BadParameter(f"unknown {', '.join(unknown)}; known are {', '.join(FAULTS)}")
    return names


def _command(scenario: Scenario, seed: int) -> str:
    """How to see the same again."""
    default = Scenario()
    words = ["python", "-m", "smoothcluster.testing.simulate", "--seed", str(seed)]
    for each in fields(Scenario):
        value = getattr(scenario, each.name)
        if value != getattr(default, each.name):
            words += [f"--{each.name.replace('_', '-')}", ",".join(value) if each.name == "faults" else str(value)]
    return shlex.join(words)


def _show(world: World, tail: int | None, out: TextIO) -> None:
    """What happened to whom, and what was written by whom: the last of it, or all."""
    for title, lines in (("What happened", world.trace), ("What was written", world.record.steps)):
        shown = lines if tail is None else lines[-tail:]
        print(f"\n{title}{'' if len(shown) == len(lines) else f' (the last {len(shown)} of {len(lines)})'}:", file=out)
        print("\n".join(shown), file=out)


def _report(played: Played, scenario: Scenario) -> None:
    """Play the schedule that went wrong once more, and tell how it came to that."""
    again, world = try_schedule(played.seed, scenario)
    if world is not None:
        _show(world, TAIL, sys.stdout)
    print(f"\nseed {played.seed}: {played.wrong}")
    if again.wrong != played.wrong:
        print(f"Played once more it ended as: {again.wrong or 'nothing is wrong'}. Something is not decided by the seed.")
    print(f"\nTo see it again:\n    {_command(scenario, played.seed)}")


def _replay(seed: int, scenario: Scenario) -> int:
    played, world = try_schedule(seed, scenario)
    if world is not None:
        _show(world, None, sys.stdout)
    print(f"\nseed {seed}: {played.wrong or 'every promise was kept'}")
    return 1 if played.wrong else 0


def _toothless(counts: Counter[str], faults: Counter[str], scenario: Scenario) -> str | None:
    """Why a run that found nothing proves nothing, if so."""
    idle = [name for name in scenario.faults if not faults[name]]
    if idle:
        return f"no schedule had a fault of these kinds: {', '.join(idle)}"
    if scenario.faults and not counts["handovers"]:
        return "the faults did not bite: no shard ever changed owner"
    return None if counts["outcomes"] else "no task had an outcome"


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--members", default=5, type=click.IntRange(1), help="How many members the group has.")
@click.option("--runner", default=3, type=click.IntRange(1), help="How many of them are Runners.")
@click.option("--schedules", default=200, type=click.IntRange(1), help="How many seeds to play.")
@click.option("--first", default=0, help="The first seed.")
@click.option("--seed", type=int, help="Play this one alone, and print all of it.")
@click.option("--faults", default=",".join(FAULTS), callback=_faults, help="What may go wrong; '' for nothing.")
@click.option("--tasks", default=20, type=click.IntRange(1), help="Tasks submitted in each job; they add others.")
@click.option("--jobs", default=3, type=click.IntRange(1), help="How many jobs are submitted.")
@click.option("--shards", default=8, type=click.IntRange(1), help="Shards of the group.")
@click.option("--concurrency", default=3, type=click.IntRange(1), help="Handlers that run at once in each member.")
@click.option("--max-attempts", default=2, type=click.IntRange(1), help="Tries that a failing task has.")
@click.option("--processes", default=os.cpu_count() or 1, type=click.IntRange(1), help="Processes to play in.")
def main(*, schedules: int, first: int, seed: int | None, processes: int, **numbers: int | tuple[str, ...]) -> None:
    """Play schedules of a simulated group, and check every promise after every step.

    Ends with status 1 at the first promise broken, saying how to see it again, or if the
    faults did not bite; with 2 if it is called wrongly.
    """
    logging.disable(logging.CRITICAL)  # Members warn of all that befalls them.
    scenario = replace(Scenario(), **numbers)  # type: ignore[arg-type]  # the options are named as its fields
    if seed is not None:
        sys.exit(_replay(seed, scenario))
    began = SYSTEM_CLOCK.monotonic()
    counts, faults = Counter[str](), Counter[str]()
    with _results(scenario, range(first, first + schedules), min(processes, schedules)) as results:
        for number, played in enumerate(results, start=1):
            if played.wrong is not None:
                break
            counts += played.counts
            faults += played.faults
            _progress(number, schedules, counts)
        else:
            played = None
    if played is not None:
        _report(played, scenario)
        sys.exit(1)
    seconds = SYSTEM_CLOCK.monotonic() - began
    befell = ", ".join(f"{count} {name}" for name, count in sorted(faults.items())) or "none"
    print(
        f"{schedules} schedules from seed {first}: every promise was kept. {counts['starts']} starts,"
        f" {counts['outcomes']} outcomes, {counts['handovers']} handovers, in {seconds:.1f} s. Faults: {befell}."
    )
    toothless = _toothless(counts, faults, scenario)
    if toothless is not None:
        print(f"That proves nothing: {toothless}.")
        sys.exit(1)


def _progress(number: int, schedules: int, counts: Counter[str]) -> None:
    if sys.stderr.isatty():
        print(
            f"\r{number} of {schedules} schedules, {counts['handovers']} handovers",
            end="\n" if number == schedules else "",
            file=sys.stderr,
            flush=True,
        )


if __name__ == "__main__":
    main()
