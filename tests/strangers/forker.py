"""A process that forks while it uses a store: ``python forker.py URL SCENARIO`` prints a report as JSON.

A child that hangs is ended by SIGALRM, and the report says so.
"""

import gc
import json
import multiprocessing
import os
import secrets
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from typing import Any

from smoothcluster import Cluster, ClusterCrawler, connect
from smoothcluster.backend import Create, Exists, HasHistory, Update
from smoothcluster.errors import SmoothclusterError
from smoothcluster.recipes import Lock, Session
from smoothcluster.testing import eventually

PATIENCE = 60
"""Seconds after which a child counts as hanging."""

ROOT = f"forker-{secrets.token_hex(6)}"


def child(act: Callable[[], object], *, to_the_end: bool = False) -> Any:
    """Fork, have the child do *act*, and return what the child reports, or how it ended without a report.

    With *to_the_end*, the child ends as a Python process does, with all its destructors and handlers of exits.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(PATIENCE)
        os.close(reading)
        report = act()
        if to_the_end:
            os.write(writing, json.dumps(report).encode())
            sys.exit()
        os.write(writing, json.dumps(report).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as said:
        text = said.read()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return json.loads(text) if code == 0 else f"ended with {code} after {text!r}"


def outcome(call: Callable[[], object]) -> str:
    """What *call* came to, in words."""
    try:
        return f"returned {call()!r:.80}"
    except SmoothclusterError as error:
        return f"{type(error).__name__}: {error}"


def idle(task: object, context: object) -> None:
    """A handler with nothing to do."""


class Parent:
    """A process with everything a client can have, and a second client that looks on."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.backend = connect(url).for_group(ROOT)
        self.other = connect(url).for_group(ROOT)
        self.backend.commit([], [Create(f"{ROOT}/a", b"parent"), Create(f"{ROOT}/count", b"0")])
        self.session, keeper = Session(self.backend, 60.0), Session(self.backend, 60.0)
        self.session.start()
        keeper.start()  # However long the children take, the lease is renewed.
        self.lease = keeper.lease
        self.backend.commit([], [Create(f"{ROOT}/leased", b"", self.lease)])
        self.lock = Lock(self.backend, self.session, f"{ROOT}/lock")
        self.lock.acquire()
        self.free_lock = Lock(self.backend, self.session, f"{ROOT}/free")
        self.woken = threading.Event()
        self.watch = self.backend.watch(f"{ROOT}/count", self.woken.set)
        self.member = ClusterCrawler(backend=self.backend, group=ROOT, runner=1, handler=idle, lease_ttl=60.0).start()

    def calls(self) -> dict[str, Callable[[], object]]:
        """Every call of a client, of a lease, of a session and of a lock."""
        backend, session, lock = self.backend, self.session, self.lock
        more: dict[str, Callable[[], object]] = {"history": backend.history} if isinstance(backend, HasHistory) else {}
        return more | {
            "get": lambda: backend.get(f"{ROOT}/a"),
            "get_many": lambda: backend.get_many([f"{ROOT}/a", f"{ROOT}/b"]),
            "keys": lambda: backend.keys(ROOT),
            "list": lambda: backend.list(ROOT),
            "commit": lambda: backend.commit([], [Create(f"{ROOT}/child", b"")]),
            "commit on a lease": lambda: backend.commit([], [Create(f"{ROOT}/child", b"", self.lease)]),
            "commit and list": lambda: backend.commit_and_list([], [Create(f"{ROOT}/child", b"")], ROOT),
            "grant": lambda: backend.lease(10.0),
            "watch": lambda: backend.watch(f"{ROOT}/a", lambda: None),
            "on_close": lambda: backend.on_close(lambda: None),
            "part": lambda: backend.for_group(f"{ROOT}-2").get(f"{ROOT}/a"),
            "renew": self.lease.renew,
            "revoke": self.lease.revoke,
            "session": lambda: Session(backend, 10.0),
            "session.held": session.held,
            "session.state": lambda: session.state,
            "session.lost": lambda: session.lost.wait(0.0),
            "session.renew_once": session.renew_once,
            "session.run": session.run,
            "session.start": session.start,
            "session.lose": session.lose,
            "session.on_lost": lambda: session.on_lost(lambda: None),
            "lock.held": lock.held,
            "lock.token": lambda: lock.token,
            "lock.release": lock.release,
            "lock.acquire": self.free_lock.acquire,
            "client": lambda: Cluster(backend, ROOT).jobs(),
            "member": lambda: ClusterCrawler(backend=backend, group=ROOT, runner=1, handler=idle),
            "member.start": self.member.start,
            "member.run": self.member.run,
            "member.join": self.member.join,
        }

    def refused(self) -> dict[str, str]:
        """Make every call; return what each came to."""
        return {name: outcome(call) for name, call in self.calls().items()}

    def unhurt(self) -> list[str]:
        """What the parent can no longer do."""
        count = self.backend.get(f"{ROOT}/count")
        assert count is not None
        eventually(lambda: self.other.get(f"{ROOT}/count") == count)
        self.woken.clear()
        self.other.commit([], [Update(f"{ROOT}/count", str(int(count.value) + 1).encode(), count.version)])
        fine = {
            "the watch wakes": self.woken.wait(30.0),
            "the lease is there": self.lease.renew(),
            "the session is held": self.session.held() and str(self.session.renew_once()) == "renewed",
            "the lock is held": self.lock.held(),
            "the lock guards": hasattr(
                self.backend.commit([self.lock.condition], [Update(f"{ROOT}/a", b"parent")]), "versions"
            ),
            "the keys are there": hasattr(
                self.other.commit([Exists(f"{ROOT}/leased")], [Update(f"{ROOT}/count", b"0")]), "versions"
            ),
            "the member works": self.member.role is not None,
            "nothing came from the child": self.backend.get(f"{ROOT}/child") is None,
        }
        return [name for name, good in fine.items() if not good]

    def close(self) -> None:
        """What a child may do on leaving."""
        self.member.stop()
        self.watch.close()
        self.session.close()
        self.backend.close()
        self.other.close()


def use(url: str) -> object:
    """A child makes every call, while the parent goes on reading."""
    parent, wrong, over = Parent(url), list[str](), threading.Event()

    def read() -> None:
        while not over.is_set():
            entry = parent.backend.get(f"{ROOT}/a")
            if entry is None or entry.value != b"parent":
                wrong.append(repr(entry))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        said = child(parent.refused)
    finally:
        over.set()
        reader.join()
    return {"child": said, "parent": [*wrong, *parent.unhurt()]}


def leave(url: str) -> object:
    """Children end in every way there is; the parent has everything afterwards."""
    parent = Parent(url)
    holder = [parent]

    def close() -> str:
        parent.close()
        parent.close()
        return outcome(lambda: parent.backend.get(f"{ROOT}/a"))

    def collect() -> str:
        nonlocal parent
        holder.clear()
        del parent
        gc.collect()
        return "collected"

    forked = multiprocessing.get_context("fork").Process(target=close)
    found: dict[str, object] = {
        "close": child(close),
        "close, to the end": child(close, to_the_end=True),
        "exit": child(lambda: "went", to_the_end=True),
        "collect": child(collect, to_the_end=True),
    }
    forked.start()
    forked.join(PATIENCE)
    found["multiprocessing"] = forked.exitcode
    if forked.is_alive():
        forked.kill()
    return {"child": found, "parent": parent.unhurt()}


def renew(url: str) -> object:
    """A child makes a client of its own."""
    parent = Parent(url)

    def start_over() -> str:
        def work() -> bytes:
            backend = connect(url)
            backend.commit([], [Create(f"{ROOT}-2/a", b"child")])
            backend.watch(f"{ROOT}-2/a", lambda: None)
            lease = backend.lease(10.0)
            assert lease.renew()
            lease.revoke()
            entry = backend.get(f"{ROOT}-2/a")
            backend.close()
            assert entry is not None
            return entry.value

        return outcome(work)

    return {"child": child(start_over), "parent": parent.unhurt()}


def busy(url: str) -> object:
    """The parent forks at any moment of what its threads do: their locks are held in the child for ever."""
    parent, over = Parent(url), threading.Event()

    def work(number: int) -> None:
        key = f"{ROOT}/busy-{number}"
        parent.backend.commit([], [Create(key, b"")])
        while not over.is_set():
            watch = parent.backend.watch(key, lambda: None)
            parent.backend.commit([], [Update(key, b"")])
            parent.backend.get(key)
            parent.lease.renew()
            parent.session.renew_once()
            watch.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()

    def act() -> str:
        said = parent.refused()
        parent.close()
        return "refused" if all(each.startswith("UsageError") for each in said.values()) else repr(said)

    try:
        found = [child(act) for _ in range(10)]
    finally:
        over.set()
        for thread in threads:
            thread.join()
    return {"child": sorted(set(map(str, found))), "parent": parent.unhurt()}


if __name__ == "__main__":
    warnings.simplefilter("ignore", DeprecationWarning)  # A fork with threads is the point.
    scenarios = {"use": use, "leave": leave, "renew": renew, "busy": busy}
    os.write(1, json.dumps(scenarios[sys.argv[2]](sys.argv[1])).encode())
    os._exit(0)
