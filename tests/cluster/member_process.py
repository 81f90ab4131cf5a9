"""One member of a group as a process of its own: python -m cluster.member_process '{"url": …}'.

Writes a line of JSON with its name and role once it is constructed, and ends with status 0 once it
has left.
"""

import json
import logging
import sys

from cluster.handlers import be_member, by_name

from smoothcluster import ClusterCrawler, Pacing, connect


def main() -> None:
    """Be a member until told to leave."""
    options = json.loads(sys.argv[1])
    logging.basicConfig(level=logging.INFO, format="%(asctime)s.%(msecs)03d %(name)s: %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("smoothcluster.pool.run").setLevel(logging.WARNING)  # Handlers that raise are meant to.
    be_member(options.pop("log"), options.pop("folder"))
    handler = by_name(options.pop("handler"))
    if "pacing" in options:
        options["pacing"] = Pacing(**options["pacing"])
    crawler = ClusterCrawler(backend=connect(options.pop("url")), handler=handler, **options)
    sys.stdout.write(json.dumps({"name": crawler.name, "role": crawler.role}) + "\n")
    sys.stdout.flush()
    crawler.run()


if __name__ == "__main__":
    main()
