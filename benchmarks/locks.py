"""Measure an uncontended lock, beside two round trips of the store's own driver in the same run.

    python benchmarks/locks.py --backend zookeeper://127.0.0.1:2181 [--times 2000] [--json]

*lock* acquires and releases a lock. The driver creates a key bound to the client's lifetime, and removes
the key. The ratio of the two depends on the machine; the script prints the ratio.
"""

from bench import Pair, compare, options
from raw import raw

from smoothcluster import connect
from smoothcluster.recipes.lock import Lock
from smoothcluster.recipes.session import Session


def main() -> None:
    """Measure, and print the results."""
    url, group, times, as_json = options(__doc__, "locks", 2000)
    backend, driver = connect(url), raw(url)
    session = Session(backend, 10.0)
    session.start()
    lock = Lock(backend, session, f"{group}/lock")

    def acquire_and_release() -> None:
        assert lock.acquire()
        lock.release()

    try:
        compare(url, [Pair("lock", acquire_and_release, driver.make_and_remove)], times, as_json=as_json)
    finally:
        session.close()
        driver.close()
        backend.close()


main()
