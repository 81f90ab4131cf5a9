"""A hundred thousand tasks fit into little memory, in the client and in each member."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cluster.group import Group

LIMIT = 200 * 1024 * 1024
TASKS = 100_000

_CLIENT = """
import sys
from pathlib import Path
from smoothcluster import Cluster, Task, connect

def memory(what):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what))

url, group, count = sys.argv[1:]
cluster = Cluster(connect(url), group)
cluster.absent()
before = memory("VmRSS")
tasks = [Task(url=f"http://www.example.org/some/directory/page-{number}.html") for number in range(int(count))]
job = cluster.submit(tasks)
print(job.id, (memory("VmHWM") - before) * 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is measured by Linux")
def test_a_hundred_thousand_tasks(group: Group) -> None:
    """Submitting them takes less than 200 MB, though the client makes a list of them; running them, likewise."""
    members = group.start(5, handler="nothing")
    group.converged()
    before = {member: member.memory("VmRSS") for member in members}
    client = [sys.executable, "-c", _CLIENT, group.backend.url, group.name, str(TASKS)]
    answer = subprocess.run(client, check=True, capture_output=True, text=True, env=os.environ, timeout=100)
    job, grown = answer.stdout.split()
    assert int(grown) < LIMIT
    progress = group.cluster.job(job).wait(100)
    assert (progress.total, progress.done) == (TASKS, TASKS)
    for member in members:
        assert member.memory("VmHWM") - before[member] < LIMIT
    assert len({outcome.task_id for outcome in group.cluster.job(job).results()}) == TASKS
