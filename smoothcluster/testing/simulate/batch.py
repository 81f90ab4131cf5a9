"""Plays many schedules in several processes, and returns the result of each."""

import gc
import logging
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import repeat
from multiprocessing import get_context

from smoothcluster.testing.simulate.simulation import Scenario, World, play


@dataclass(frozen=True, slots=True)
class Played:
    """The result of a schedule, passed between processes."""

    seed: int
    wrong: str | None
    """The broken promise, or the exception raised; None after success."""
    counts: Counter[str]
    faults: Counter[str]


def try_schedule(seed: int, scenario: Scenario) -> tuple[Played, World | None]:
    """Play a schedule and return the result and the world; the world is None if creating the world failed."""
    logging.disable(logging.CRITICAL)  # Members log a warning at every fault.
    gc.disable()  # Each collection traverses all live objects, and a schedule leaves little until its end.
    wrong = None
    world: World | None
    try:
        world = play(seed, scenario)
    except Exception as error:  # noqa: BLE001 - a bug that raises is found as much as a promise that is broken
        wrong = f"{type(error).__name__}: {error}"
        world = getattr(error, "world", None)
    finally:
        gc.enable()
        logging.disable(logging.NOTSET)
    counts, faults = Counter[str](), Counter[str]()
    if world is not None:
        record = world.record
        counts.update(starts=record.starts, handovers=record.handovers, outcomes=len(record.outcomes))
        counts.update(quarantined=record.quarantined)
        counts.update(adoptions=world.adoptions.count, breakers=world.adoptions.opened)
        faults.update(world.trouble.done)
    return Played(seed, wrong, counts, faults), world


def _try(seed: int, scenario: Scenario) -> Played:
    return try_schedule(seed, scenario)[0]


@contextmanager
def played(scenario: Scenario, seeds: Iterable[int], processes: int) -> Generator[Iterator[Played], None, None]:
    """Play each of *seeds* in as many *processes*; yield an iterator of the results, in order."""
    if processes == 1:
        yield map(_try, seeds, repeat(scenario))
        return
    # Spawned, so that nothing of this process reaches a schedule.
    pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"))
    try:
        yield pool.map(_try, seeds, repeat(scenario), chunksize=4)
    finally:
        pool.shutdown(cancel_futures=True)
