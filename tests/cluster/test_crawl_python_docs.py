"""A real site is crawled whole, though Runners die on the way."""

import posixpath
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from cluster.group import Member, NewGroup, child_environment
from cluster.stores import Store
from processes import spawn

from smoothcluster import Task

SITE = Path("/usr/share/doc/python3.11/html")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (SITE / "index.html").exists(), reason="its pages are missing: apt-get install python3.11-doc"
    ),
]


class Anchors(HTMLParser):
    """The targets of a page's links, as they are written."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep the target of a link."""
        if tag == "a":
            self.targets += [value for name, value in attrs if name == "href" and value]


def reachable() -> set[str]:
    """The paths of all pages that can be reached from the first one, found in the files, without a server."""
    found, new = set[str](), {"/index.html"}
    while new:
        path = new.pop()
        found.add(path)
        file = SITE / unquote(path[1:])
        for target in Anchors(file.read_text(errors="replace")).targets if file.is_file() else ():
            parts = urlsplit(target)
            if not (parts.scheme or parts.netloc) and parts.path.endswith(".html"):
                new |= {posixpath.normpath(posixpath.join(posixpath.dirname(path), parts.path))} - found
    return found


@pytest.fixture
def site() -> Iterator[str]:
    """The site's address."""
    server = spawn(
        [sys.executable, "-m", "cluster.site_process", str(SITE)],
        env=child_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert server.stdout is not None
    with server, server.stdout:
        yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        server.kill()


@pytest.mark.promise(3)
@pytest.mark.timeout(300)
def test_every_page_is_crawled_once_though_two_runners_are_killed(
    new_group: NewGroup, plain_store: Store, site: str
) -> None:
    """The handlers' own log and the recorded outcomes both have every page that links lead to, none recorded twice."""
    group = new_group(plain_store.url, handler="crawl", concurrency=4)
    group.start(5)
    group.converged()
    job = group.cluster.submit([Task(id="/index.html", url=f"{site}/index.html")])
    victims = list[Member]()
    for ended in (60, 200):
        group.progressed(ended)
        victims.append(group.eventually(lambda: [member for member in group.runners() if group.running(member)])[0])
        victims[-1].kill()
    pages = reachable()  # It takes seconds, and the others crawl meanwhile.
    there = {page for page in pages if (SITE / unquote(page[1:])).is_file()}
    assert len(there) > 500
    outcomes = group.finish(job, pages, within=200)
    assert {each.task_id for each in outcomes if isinstance(each.value, dict) and each.value["found"]} == there
    assert {line.task for line in group.log()} == pages
    for victim in victims:
        assert {event["evidence"] for event in group.handovers(victim.name)} == {"process_gone"}
    group.converged()
