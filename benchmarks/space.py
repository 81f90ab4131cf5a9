"""Memory and time of the ids that members keep: of the ids seen by a shard's owner, and of the tasks sent by a process.

Bytes for each id are measured twice: as allocated by Python, and as memory of the process, which includes what the
allocator wastes. Times are medians of batches. A plain `set` stands beside for comparison. `SentTasks` remembers
100,000 to 200,000 tasks, however many were sent.
"""

import argparse
import gc
import hashlib
import json
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from bench import machine

from smoothcluster.jobs.chunks import DIGEST_BYTES
from smoothcluster.jobs.digest_set import DigestSet
from smoothcluster.work import SentTasks

SEEN_SIZES_IDS = (10_000, 100_000, 1_000_000)
SENT_SIZES_TASKS = (50_000, 100_000, 200_000, 1_000_000)
BATCH_OPERATIONS = 1000
"""Operations that are timed together."""
TIMED_BATCHES = 20


def digests(first: int, count: int) -> list[bytes]:
    """Digests of different ids, as `smoothcluster.jobs.chunks.digest` makes them."""
    return [
        hashlib.blake2b(b"http://localhost/%d" % number, digest_size=DIGEST_BYTES).digest()
        for number in range(first, first + count)
    ]


def microseconds(act: Callable[[bytes], object], batch: Sequence[bytes]) -> float:
    """Time *act* on each of *batch*; microseconds of the processor for one, whatever else the machine does."""
    began = time.process_time()
    for each in batch:
        act(each)
    return 1e6 * (time.process_time() - began) / len(batch)


def batches(first: int, end: int = sys.maxsize) -> list[list[bytes]]:
    """Batches of digests for timing, made before the clock runs; none of *end* or later."""
    starts = range(first, min(end, first + TIMED_BATCHES * BATCH_OPERATIONS), BATCH_OPERATIONS)
    return [digests(start, BATCH_OPERATIONS) for start in starts]


def resident() -> int:
    """Bytes of the process in memory, by the kernel."""
    return 4096 * int(Path("/proc/self/statm").read_text().split()[1])


def fill(add: Callable[[bytes], object], size: int) -> None:
    """Add *size* digests, a few in memory at a time."""
    for first in range(0, size, BATCH_OPERATIONS):
        for each in digests(first, min(BATCH_OPERATIONS, size - first)):
            add(each)


Memory = Callable[[], tuple[Callable[[bytes], object], Callable[[bytes], object]]]
"""Make an empty memory; return the function that adds a digest, and the function that looks for a digest."""


def space(make: Memory, size: int) -> dict[str, float]:
    """Bytes for each of *size* digests: in memory by the kernel, and allocated by Python."""
    fill(make()[0], BATCH_OPERATIONS)  # What the first use of anything takes is no part of the memory.
    gc.collect()
    before = resident()
    kept = make()
    fill(kept[0], size)
    by_kernel = resident() - before
    del kept
    gc.collect()
    tracemalloc.start()
    kept = make()
    fill(kept[0], size)
    allocated, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return {"bytes": allocated / size, "resident": by_kernel / size, "megabytes": allocated / 1e6}


def times(make: Memory, size: int) -> dict[str, float]:
    """Microseconds of each operation, once *size* digests have been added."""
    add, look = make()
    fill(add, size)
    return {
        "hit": median(
            microseconds(look, batch) for batch in batches(size - min(size, TIMED_BATCHES * BATCH_OPERATIONS), size)
        ),
        "miss": median(microseconds(look, batch) for batch in batches(10_000_000)),
        "add": median(microseconds(add, batch) for batch in batches(20_000_000)),
    }


def new_digest_set() -> tuple[Callable[[bytes], object], Callable[[bytes], object]]:
    """The ids seen by a shard's owner."""
    found = DigestSet()
    return found.add, found.__contains__


def new_set() -> tuple[Callable[[bytes], object], Callable[[bytes], object]]:
    """The same in a plain set."""
    found: set[bytes] = set()
    return found.add, found.__contains__


def new_sent_tasks() -> tuple[Callable[[bytes], object], Callable[[bytes], object]]:
    """The tasks sent by a process, each in a commit of its own."""
    sent = SentTasks()
    return lambda each: sent.add([("job", each)]), lambda each: ("job", each) in sent


MEMORY_KINDS: dict[str, tuple[Memory, Sequence[int]]] = {
    "DigestSet": (new_digest_set, SEEN_SIZES_IDS),
    "set": (new_set, SEEN_SIZES_IDS),
    "SentTasks": (new_sent_tasks, SENT_SIZES_TASKS),
}


def main() -> None:
    """Measure each size in a process of its own, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=int, default=1_000_000, help="leave out the larger sizes")
    parser.add_argument("--json", action="store_true", help="one JSON object for each line of the table")
    parser.add_argument("--one", nargs=2, metavar=("KIND", "IDS"), help="measure one size only, as JSON")
    given = parser.parse_args()
    if given.one:
        kind, size = given.one[0], int(given.one[1])
        make, _ = MEMORY_KINDS[kind]
        print(json.dumps({"what": kind, "ids": size} | space(make, size) | times(make, size)))
        return
    plan = [(kind, size) for kind, (_, sizes) in MEMORY_KINDS.items() for size in sizes]
    if not given.json:
        print(f"{machine()}\nbytes for each id, and microseconds")
        print(f"{'':12}{'ids':>10}{'bytes':>9}{'resident':>10}{'MB in all':>11}{'hit':>8}{'miss':>8}{'add':>8}")
    for kind, size in plan:
        if size > given.most:
            continue
        # A process of its own: memory freed by an earlier measurement would be used again, unseen.
        command = [sys.executable, __file__, "--one", kind, str(size)]
        row = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
        if given.json:
            print(json.dumps({"machine": machine()} | row), flush=True)
            continue
        shown = "".join(f"{row[name]:>{width}.{digits}f}" for name, width, digits in _TABLE_COLUMNS)
        print(f"{row['what']:12}{row['ids']:>10,}{shown}", flush=True)


_TABLE_COLUMNS = (
    ("bytes", 9, 1),
    ("resident", 10, 1),
    ("megabytes", 11, 2),
    ("hit", 8, 2),
    ("miss", 8, 2),
    ("add", 8, 2),
)

if __name__ == "__main__":
    main()
