"""A place to run what stands on the pages."""

import os
import re
import secrets
import signal
import subprocess
import sys
from pathlib import Path

from cluster.group import PATIENCE

from smoothcluster import Cluster, connect
from smoothcluster.testing import eventually

HANDLER = "def fetch(task, context):\n    return task.url\n"


class Place:
    """An empty folder, and a group of its own in a store."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url, self.group = folder, url, f"test-{secrets.token_hex(6)}"
        self.cluster = Cluster(connect(url), self.group)
        (folder / "crawl.py").write_text(HANDLER)

    def adapted(self, code: str) -> str:
        """*code* for this store and this group: the names of servers and files on the page are examples."""
        hosts = self.url.partition("://")[2] if "sqlite" not in self.url else self.url.removeprefix("sqlite:///")
        code = re.sub(
            r"(\w+Backend\(|zk_hosts=)\"[^\"]*\"", lambda found: f'{found[1]}"{hosts.removesuffix("/0")}"', code
        )
        code = re.sub(r'connect\("[^"]*"', f'connect("{self.url}"', code)
        code = re.sub(r"SMOOTHCLUSTER_BACKEND=\S+", f"SMOOTHCLUSTER_BACKEND={self.url}", code)
        code = re.sub(r",?\s*\)\.run\(\)", f', group="{self.group}").run()', code)
        return code.replace('"docs"', f'"{self.group}"').replace("--group docs", f"--group {self.group}")

    def start(self, *command: str) -> "subprocess.Popen[str]":
        """A process in the folder."""
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        # The code under test may be found by PYTHONPATH, too.
        modules = os.pathsep.join(filter(None, [str(self.folder), os.environ.get("PYTHONPATH")]))
        environment = os.environ | {"PATH": path, "PYTHONPATH": modules}
        return subprocess.Popen(command, cwd=self.folder, env=environment, text=True, stdout=subprocess.PIPE)

    def type(self, code: str) -> str:
        """What a shell prints that is given *code*; each command must end well."""
        with self.start("bash", "-euc", f"export SMOOTHCLUSTER_BACKEND={self.url}\n{self.adapted(code)}") as shell:
            out = shell.communicate(timeout=PATIENCE)[0]
        assert shell.returncode == 0, f"{code}\n{out}"
        return out

    def works_and_leaves(self, process: "subprocess.Popen[str]") -> None:
        """Wait until a member works here, have its process leave, and see that it does."""

        def works() -> bool:
            assert process.poll() is None, "it has ended"
            return not self.cluster.absent() and any(each["running"] for each in self.cluster.status()["members"])

        with process:
            try:
                eventually(works, PATIENCE)
                process.send_signal(signal.SIGTERM)
                assert process.wait(PATIENCE) == 0
            finally:
                process.kill()
