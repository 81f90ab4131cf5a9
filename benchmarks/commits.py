"""Measure the cost of reads and commits, beside the store's own driver in the same run.

    python benchmarks/commits.py --backend redis://127.0.0.1:6379 [--times 2000] [--json]

All run in a single client. *read* reads a key; *commit* sets a key at a known version; *claim* sets 14 keys, each
at a known version, as in a claim of a seat. The driver does the same without conditions.
"""

from collections.abc import Callable

from bench import Pair, compare, options
from raw import KEYS_PER_COMMIT, SMALL_VALUE, raw

from smoothcluster import connect
from smoothcluster.backend import Change, Committed, CoordinationBackend, Create, Update


def commit(backend: CoordinationBackend, keys: list[str]) -> Callable[[], None]:
    """Return a function to set *keys*, each at the version of the previous call."""
    made = backend.commit([], [Create(key, SMALL_VALUE) for key in keys])
    assert isinstance(made, Committed)
    versions = dict(made.versions)

    def act() -> None:
        changes: list[Change] = [Update(key, SMALL_VALUE, versions[key]) for key in keys]
        done = backend.commit([], changes)
        assert isinstance(done, Committed)
        versions.update(done.versions)

    return act


def main() -> None:
    """Measure, and print the results."""
    url, group, times, as_json = options(__doc__, "commits", 2000)
    backend, driver = connect(url), raw(url)
    try:
        one = commit(backend, [f"{group}/one"])
        many = commit(backend, [f"{group}/many-{number}" for number in range(KEYS_PER_COMMIT)])
        pairs = [
            Pair("read", lambda: backend.get(f"{group}/one"), driver.read),
            Pair("commit", one, driver.write),
            Pair("claim", many, driver.write_many),
        ]
        compare(url, pairs, times, as_json=as_json)
    finally:
        driver.close()
        backend.close()


main()
