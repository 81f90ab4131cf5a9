"""What the page for users of smoothcrawler-cluster says, tried with that package installed from the registry."""

import json
import os
import re
import secrets
import signal
import subprocess
import sys
import threading
import venv
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import final

import pytest
from pages import block

from smoothcluster import Cluster, connect
from smoothcluster.testing import eventually
from smoothcluster.zookeeper_crawler import ORIGINAL_ARGUMENTS

pytestmark = pytest.mark.slow

DEADLINE = 60.0

PARTS = """
from urllib.request import urlopen

from smoothcrawler.components.data import BaseDataHandler, BaseHTTPResponseParser
from smoothcrawler.components.httpio import HTTP


class Sender(HTTP):
    def get(self, url, *args, **kwargs):
        return urlopen(url, timeout=30)


class Parser(BaseHTTPResponseParser):
    def get_status_code(self, response):
        return response.status

    def handling_200_response(self, response):
        return response.read().decode()


class DataHandler(BaseDataHandler):
    def process(self, result):
        return {"page": result}
"""

LEFT_BEHIND = """
import json
import sys

from kazoo.client import KazooClient
from smoothcrawler_cluster.model import Initial, ResultDetail, TaskState

task = Initial.task(
    running_content=[
        {"task_id": n, "url": f"{sys.argv[2]}/{n}", "method": "GET", "parameters": {}, "header": {}, "body": {}}
        for n in range(3)
    ]
)
detail = {"task_id": 0, "state": TaskState.DONE.value, "status_code": 200, "response": "x", "error_msg": None}
task.result_detail = [ResultDetail(**detail)]
client = KazooClient(hosts=sys.argv[1])
client.start()
value = json.dumps(task.to_readable_object()).encode()
client.create("/smoothcrawler/node/sc-crawler_1/task", value, makepath=True)
client.stop()
"""

DIRECT = """
from smoothcluster import Cluster, ClusterCrawler, Task, connect
from smoothcrawler.crawler import SimpleCrawler
from parts import DataHandler, Parser
import sys

components = SimpleCrawler()
components.register_factory(http_req_sender=DirectSender(), http_resp_parser=Parser(), data_process=DataHandler())
backend = connect("memory://")
tasks = [Task(url=f"{sys.argv[1]}/{number}") for number in range(50)]
with ClusterCrawler(
    backend=backend, runner=1, concurrency=8, handler=lambda task, context: components.run(task.method, task.url)
):
    job = Cluster(backend).submit(tasks)
    job.wait(60)
    found = {outcome.task_id: outcome.value for outcome in job.results()}
assert found == {task.id: {"page": "/" + task.url.rpartition("/")[2]} for task in tasks}, found
"""


@final
class Echo(BaseHTTPRequestHandler):
    """A site on which each page is its own path."""

    def do_GET(self) -> None:
        """Answer."""
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.path.encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name is http.server's
        """Say nothing."""


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    """Its URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment in which the original is installed, as the page says."""
    (wanted,) = re.findall(
        r"smoothcrawler-cluster==\S+",
        block("docs/howto/migrate-from-smoothcrawler-cluster.md", "sh", "pip install"),
    )
    folder = tmp_path_factory.mktemp("original")
    venv.create(folder, with_pip=False)
    command = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "install", "--quiet"]
    command += ["--retries", "1", "--timeout", "15", "--no-compile", "--disable-pip-version-check", wanted]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    except subprocess.TimeoutExpired:
        pytest.skip(f"{wanted} was not installed within two minutes")
    if done.returncode:
        pytest.skip(f"{wanted} cannot be installed here: {done.stderr.strip()[-200:]}")
    return folder / "bin"


@final
class Newcomer:
    """A folder, and an environment with both packages."""

    def __init__(self, programs: Path, folder: Path, hosts: str) -> None:
        self._folder, self._hosts, self.url = folder, hosts, f"zookeeper://{hosts}"
        self._environment = os.environ | {
            "PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join([str(folder), *filter(None, sys.path)]),
        }

    def write(self, name: str, code: str) -> None:
        """Write a file of the page."""
        (self._folder / name).write_text(code.replace("localhost:2181", self._hosts))

    def type(self, line: str) -> str:
        """What a shell prints for this; each command must end well."""
        code = f"export SMOOTHCLUSTER_BACKEND={self.url}\n{line.replace('localhost:2181', self._hosts)}"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", code], cwd=self._folder, env=self._environment, text=True,
            stdout=subprocess.PIPE, check=False, timeout=DEADLINE,
        )  # fmt: skip
        assert done.returncode == 0, f"{line}\n{done.stdout}"
        return done.stdout

    def start(self, *command: str) -> "subprocess.Popen[bytes]":
        """A process in the folder."""
        return subprocess.Popen(command, cwd=self._folder, env=self._environment)


@pytest.fixture
def newcomer(original: Path, tmp_path: Path, zookeeper_hosts: str) -> Newcomer:
    """With components, and a part of the server for this test alone."""
    newcomer = Newcomer(original, tmp_path, f"{zookeeper_hosts}/{secrets.token_hex(6)}")
    newcomer.write("parts.py", PARTS)
    return newcomer


@pytest.mark.timeout(400)  # the registry may be slow
def test_components_tasks_and_results_move(newcomer: Newcomer, site: str) -> None:
    """Members crawl with the original's components; what the original has not run is submitted; outcomes are right."""
    newcomer.write("left_behind.py", LEFT_BEHIND)
    newcomer.type(f"python3 left_behind.py localhost:2181 {site}")
    newcomer.write("crawl.py", block("docs/howto/migrate-from-smoothcrawler-cluster.md", "python", "ZookeeperCrawler"))
    newcomer.write("leftover.py", block("docs/howto/migrate-from-smoothcrawler-cluster.md", "python", "KazooClient"))
    commands = block("docs/howto/migrate-from-smoothcrawler-cluster.md", "sh", "https://www.example.com")
    move = block("docs/howto/migrate-from-smoothcrawler-cluster.md", "sh", "leftover.py")

    members = [newcomer.start("python3", "crawl.py") for _ in range(2)]
    backend = connect(newcomer.url)
    try:
        cluster = Cluster(backend)
        eventually(lambda: not cluster.absent() and len(cluster.status()["members"]) == 2, DEADLINE)
        assert {each["name"] for each in cluster.status()["members"]} == {"sc-crawler_0", "sc-crawler_1"}

        job, outcome = newcomer.type(commands.replace("https://www.example.com", f"{site}/first")).splitlines()
        assert (job, json.loads(outcome)["value"]) == ("first", {"page": "/first"})

        assert newcomer.type(move).strip() == "leftover"
        leftover = cluster.job("leftover")
        assert leftover.wait(DEADLINE).done == 2, "one of three has a result"
        assert sorted(str(each.value) for each in leftover.results()) == ["{'page': '/1'}", "{'page': '/2'}"]

        for member in members:
            member.send_signal(signal.SIGTERM)
        assert [member.wait(DEADLINE) for member in members] == [0, 0]
    finally:
        backend.close()
        for member in members:
            member.kill()
            member.wait()


@pytest.mark.timeout(400)  # as above
def test_a_sender_without_the_retry_is_thread_safe(newcomer: Newcomer, site: str) -> None:
    """With eight handlers at once, each task records its own page."""
    sender = block("docs/howto/migrate-from-smoothcrawler-cluster.md", "python", "DirectSender")
    newcomer.write("direct.py", sender + DIRECT)
    newcomer.type(f"python3 direct.py {site}")


def test_every_argument_of_the_original_has_its_place(newcomer: Newcomer) -> None:
    """On the page; and where it differs, in the message of the class."""
    code = "import inspect, smoothcrawler_cluster as s; print(*inspect.signature(s.ZookeeperCrawler).parameters)"
    arguments = set(newcomer.type(f'python3 -c "{code}"').split())
    page = (Path(__file__).parents[2] / "docs" / "howto" / "migrate-from-smoothcrawler-cluster.md").read_text(
        encoding="utf-8"
    )
    assert [name for name in arguments if f"`{name}" not in page] == []
    assert arguments - ORIGINAL_ARGUMENTS.keys() == {"runner", "backup", "name", "group", "zk_hosts"}
