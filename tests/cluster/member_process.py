"""One member of a group as a process of its own: python -m cluster.member_process '{"url": …}'.

Writes a line of JSON with its name and role once it is constructed, and ends with status 0 once it
has left. Dies with the process that started it, however that ends.
"""

import ctypes
import json
import logging
import os
import signal
import sys

from cluster.handlers import be_member, by_name

from smoothcluster import ClusterCrawler, connect

_PR_SET_PDEATHSIG = 1


def die_with(parent: int) -> None:
    """Have the kernel kill this process when *parent* ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # It ended before we asked.
        sys.exit(1)


def main() -> None:
    """Be a member until told to leave."""
    options = json.loads(sys.argv[1])
    die_with(options.pop("parent"))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s.%(msecs)03d %(name)s: %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("smoothcluster.pool.run").setLevel(logging.WARNING)  # Handlers that raise are meant to.
    be_member(options.pop("log"), options.pop("folder"))
    handler = by_name(options.pop("handler"))
    crawler = ClusterCrawler(backend=connect(options.pop("url")), handler=handler, **options)
    sys.stdout.write(json.dumps({"name": crawler.name, "role": crawler.role}) + "\n")
    sys.stdout.flush()
    crawler.run()


if __name__ == "__main__":
    main()
