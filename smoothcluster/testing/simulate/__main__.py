"""The command: play many schedules, and stop at the first broken promise."""

import os
import shlex
import sys
from collections import Counter
from dataclasses import fields, replace

import click

from smoothcluster.clock import SYSTEM_CLOCK
from smoothcluster.testing.extra import needs_extra

try:
    with needs_extra():
        from smoothcluster.testing.simulate.batch import Played, played, try_schedule
        from smoothcluster.testing.simulate.faults import FAULTS, KNOWN_FAULTS
        from smoothcluster.testing.simulate.simulation import Scenario, World
except ModuleNotFoundError as error:
    sys.stderr.write(f"Error: {error}\n")
    sys.exit(2)

TRACE_TAIL_LINES = 60
"""The number of trace lines printed before a violation."""


def _faults(context: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in value.split(",") if name.strip())
    unknown = [name for name in names if name not in KNOWN_FAULTS]
    if unknown:
        raise click.BadParameter(
            f"unknown {', '.join(unknown)}; known are {', '.join(KNOWN_FAULTS)}", context, parameter
        )
    return names


def _command(scenario: Scenario, seed: int) -> str:
    """The command line for playing the same schedule again."""
    words = ["python", "-m", "smoothcluster.testing.simulate", "--seed", str(seed)]
    for each in fields(Scenario):
        value = getattr(scenario, each.name)
        if value != each.default:
            words += [f"--{each.name.replace('_', '-')}", ",".join(value) if each.name == "faults" else str(value)]
    return shlex.join(words)


def _show(world: World, tail: int | None) -> None:
    """Print the steps of the store and the events of the processes: the last *tail*, or all."""
    for title, lines in (("What was written", world.record.steps), ("What happened", world.trace)):
        shown = lines if tail is None else lines[-tail:]
        click.echo(f"\n{title}{'' if len(shown) == len(lines) else f' (the last {len(shown)} of {len(lines)})'}:")
        click.echo("\n".join(shown))


def _report(found: Played, scenario: Scenario) -> None:
    """Play the failed schedule once more, and print the steps before the failure."""
    again, world = try_schedule(found.seed, scenario)
    if world is not None:
        _show(world, TRACE_TAIL_LINES)
    click.echo(f"\nseed {found.seed}: {found.wrong}")
    if again.wrong != found.wrong:
        click.echo(f"Played once more it ended so: {again.wrong or 'well'}. Something is not decided by the seed.")
    click.echo(f"\nTo see it again:\n    {_command(scenario, found.seed)}")


def _replay(seed: int, scenario: Scenario) -> int:
    again, world = try_schedule(seed, scenario)
    if world is not None:
        _show(world, None)
    click.echo(f"\nseed {seed}: {again.wrong or 'every promise was kept'}")
    return 1 if again.wrong else 0


def _toothless(counts: Counter[str], faults: Counter[str], scenario: Scenario) -> str | None:
    """The reason why a run without violations proves nothing, if there is such a reason."""
    idle = [name for name in scenario.faults if not faults[name]]
    if idle:
        return f"no schedule had a fault of these kinds: {', '.join(idle)}"
    if scenario.faults and not counts["handovers"]:
        return "the faults had no effect: no shard changed owner"
    return None if counts["outcomes"] else "no task had an outcome"


def _play(scenario: Scenario, first: int, schedules: int, processes: int) -> int:
    began = SYSTEM_CLOCK.monotonic()
    counts, faults = Counter[str](), Counter[str]()
    with played(scenario, range(first, first + schedules), min(processes, schedules)) as results:
        for number, each in enumerate(results, start=1):
            if each.wrong is not None:
                _report(each, scenario)
                return 1
            counts += each.counts
            faults += each.faults
            if sys.stderr.isatty():
                click.echo(f"\r{number} of {schedules}, {counts['handovers']} handovers ", nl=False, err=True)
    seconds = SYSTEM_CLOCK.monotonic() - began
    befell = ", ".join(f"{count} {name}" for name, count in sorted(faults.items())) or "none"
    click.echo(
        f"{schedules} schedules from seed {first}: every promise was kept. {counts['starts']} starts,"
        f" {counts['outcomes']} outcomes, {counts['quarantined']} of them quarantined,"
        f" {counts['handovers']} handovers, {counts['adoptions']} adoptions,"
        f" the breaker opened {counts['breakers']} times, in {seconds:.1f} s. Faults: {befell}."
    )
    toothless = _toothless(counts, faults, scenario)
    if toothless is not None:
        click.echo(f"That proves nothing: {toothless}.")
    return 0 if toothless is None else 1


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--members", default=5, type=click.IntRange(1), help="Number of members.")
@click.option("--runner", default=3, type=click.IntRange(1), help="Number of Runners in most schedules.")
@click.option(
    "--shape",
    default="any",
    type=click.Choice(["some", "all", "any"]),
    help="Whether some or all members are Runners; any: a mix of both.",
)
@click.option("--schedules", default=200, type=click.IntRange(1), help="Number of seeds to play.")
@click.option("--first", default=0, help="The first seed.")
@click.option("--seed", type=int, help="Play the schedule of this seed alone, and print the whole trace.")
@click.option(
    "--faults",
    default=",".join(FAULTS),
    callback=_faults,
    help="Kinds of faults; '' for none. Storms have all of them.",
)
@click.option(
    "--tasks",
    default=20,
    type=click.IntRange(1),
    help="Tasks submitted in each job of a storm; the tasks add more tasks.",
)
@click.option("--jobs", default=3, type=click.IntRange(1), help="Number of large jobs submitted in a storm.")
@click.option("--shards", default=8, type=click.IntRange(1), help="Number of shards in most schedules.")
@click.option(
    "--concurrency", default=3, type=click.IntRange(1), help="Number of handlers that run at once in each member."
)
@click.option("--max-attempts", default=2, type=click.IntRange(1), help="Number of attempts for a failing task.")
@click.option(
    "--processes", default=os.cpu_count() or 1, type=click.IntRange(1), help="Number of processes for the simulation."
)
def main(*, schedules: int, first: int, seed: int | None, processes: int, **numbers: object) -> None:
    """Play schedules of a simulated group, and check every promise after every step.

    The exit status is 1 after a broken promise, with the command that plays the schedule again, or if
    the faults had no effect; 2 after a wrong option.
    """
    scenario = replace(Scenario(), **numbers)  # type: ignore[arg-type]  # the other options are named as its fields
    if seed is not None:
        sys.exit(_replay(seed, scenario))
    sys.exit(_play(scenario, first, schedules, processes))


if __name__ == "__main__":
    main()
