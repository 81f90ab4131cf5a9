"""A crawl by a script of its own, which has changed the settings of its process as users do."""

import os
import secrets
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import indent

PATIENCE = 120
"""Seconds that a crawl may take."""

_SCRIPT = """\
import logging.config, os, pathlib, pickle, signal, socket, sys, threading
from smoothcluster import Cluster, ClusterCrawler, Isolation, Task, connect

class Item:
    value = 7

def fetch(task, context):
{handler}
    return {{"value": pickle.loads(pickle.dumps(Item())).value}}

def main(url, group, isolated, report):
    backend = connect(url)
{settings}
    cluster = Cluster(backend, group)
    job = cluster.submit([Task(id=str(number)) for number in range(4)])
    isolation = Isolation() if isolated == "isolated" else None
    crawler = ClusterCrawler(
        backend=backend, group=group, runner=1, handler=fetch, concurrency=2, isolation=isolation
    )

    def finish():
        try:
            job.wait({patience})
            with open(report, "w") as file:
                print(sorted((str(each.state), str(each.value), str(each.error)) for each in job.results()), file=file)
        finally:
            crawler.stop()

    threading.Thread(target=finish, daemon=True).start()
    crawler.run()
    backend.close()

if __name__ == "__main__":
    main(*sys.argv[1:])
"""


@dataclass(frozen=True, slots=True)
class Crawled:
    """What came of a crawl: the exit status, standard error, and the sorted outcomes as the script wrote them."""

    status: int
    errors: str
    outcomes: str


ALARM = """
class LateError(Exception): pass

def ring(number, frame):
    signal.rung.set()
    raise LateError

signal.rung = threading.Event()

signal.signal(signal.SIGALRM, ring)
logging.config.dictConfig({
    "version": 1, "root": {"handlers": ["console"]}, "handlers": {"console": {"class": "logging.StreamHandler"}},
})
"""
"""An alarm that raises in the main thread, and a configuration of logging that disables other loggers."""

RING = """
if task.id == "1" and "__mp_main__" not in __name__:
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    signal.rung.wait(60)
"""
"""Rings the alarm in the handler of a task that runs in the member."""

DONE = str([("done", "{'value': 7}", "None")] * 4)
"""The outcomes if all went well."""


def write_script(folder: Path, settings: str = "pass", handler: str = "pass") -> Path:
    """Write the script with *settings* before the crawl and *handler* before the result."""
    script = folder / "crawl_script.py"
    texts = {"settings": indent(settings, "    "), "handler": indent(handler, "    ")}
    script.write_text(_SCRIPT.format(patience=PATIENCE, **texts))
    return script


def crawl(
    script: Path,
    url: str,
    *,
    isolated: bool = True,
    flags: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    shell: str = "",
) -> Crawled:
    """Run the script on the store at *url*; *flags* are those of Python, *shell* redirections of the shell."""
    report, errors = script.with_suffix(".report"), script.with_suffix(".errors")
    report.write_text("")  # Made by the script, it might not be readable: the script may change its umask.
    arguments = [str(script), url, f"test-{secrets.token_hex(6)}", "isolated" if isolated else "together", str(report)]
    command = ["sh", "-c", f'exec "$@" {shell}', "sh", sys.executable, *flags, *arguments]
    with errors.open("wb") as file:
        status = subprocess.run(
            command, env=os.environ | dict(env or {}), stdout=file, stderr=file, check=False, timeout=2 * PATIENCE
        ).returncode
    return Crawled(status, errors.read_text(errors="replace"), report.read_text().strip())
