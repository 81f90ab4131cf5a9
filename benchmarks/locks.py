"""What a lock costs that nobody else wants, beside two round trips of the store's own driver in the same run.

    python benchmarks/locks.py --backend zookeeper://127.0.0.1:2181 [--times 2000] [--json]

*lock* is to acquire it and to release it again. The driver's own makes a key that lives no longer than
its client, and removes it. The aim is 0.8: four fifths as fast as that.
"""

from bench import Pair, compare, options
from raw import raw

from smoothcluster import connect
from smoothcluster.recipes.lock import Lock
from smoothcluster.recipes.session import Session


def main() -> None:
    """Measure, and print."""
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
