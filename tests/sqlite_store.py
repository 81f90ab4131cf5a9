"""A sqlite file as a store that can be taken away, and processes that stop or die in the middle of writing it."""

import secrets
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Self, final

from processes import pause, spawn
from smoothcluster_sqlite import SqliteBackend

_WRITER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
connection.execute("UPDATE clock SET number = number + 1000000")
print("writing", flush=True)
sys.stdin.read()
connection.execute("ROLLBACK")
"""


@final
class Writer:
    """A process in the middle of a transaction in the file at *path*."""

    def __init__(self, path: Path) -> None:
        self._process = spawn([sys.executable, "-c", _WRITER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.pid = self._process.pid
        assert self._process.stdout is not None
        if self._process.stdout.readline() != b"writing\n":
            self.kill()
            raise AssertionError(f"nothing can be written to {path}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()

    def pause(self) -> None:
        """SIGSTOP; return when it has stopped."""
        pause(self.pid)

    def resume(self) -> None:
        """SIGCONT; it ends its transaction and itself."""
        self._process.send_signal(signal.SIGCONT)
        self._process.communicate()

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.communicate()


@final
class SqliteStore:
    """A file in a folder of its own. There is no server: what is killed is the path, what is paused is a writer."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="smoothcluster-"))
        self.path = self._folder / "cluster.db"
        self._away = self._folder / f"away-{secrets.token_hex(4)}"
        self._writer: Writer | None = None
        with closing(SqliteBackend(self.path)) as backend:
            backend.get("none")  # So that it is there.

    @property
    def url(self) -> str:
        """What `connect` takes."""
        return f"sqlite:///{self.path}"

    def kill(self) -> None:
        """The file is gone, as if its disk were."""
        self._away.mkdir()
        for file in sorted(self._folder.glob("cluster.db*")):  # Itself first: then nobody opens the others anew.
            file.rename(self._away / file.name)

    def start(self) -> Self:
        """It is back."""
        if self._away.exists():
            for file in sorted(self._away.iterdir(), reverse=True):
                file.rename(self._folder / file.name)
            self._away.rmdir()
        return self

    def empty(self) -> None:
        """The file is deleted, and somebody makes another."""
        self._delete()
        with closing(SqliteBackend(self.path)) as backend:
            backend.get("none")

    def save(self) -> None:
        """Take a backup."""
        with closing(sqlite3.connect(self.path)) as file, closing(sqlite3.connect(self._folder / "backup")) as copy:
            file.backup(copy)

    def set_back(self) -> None:
        """The backup takes the place of the file."""
        self._delete()
        shutil.copy(self._folder / "backup", self.path)

    def _delete(self) -> None:
        for file in sorted(self._folder.glob("cluster.db*")):
            file.unlink()

    def pause(self) -> None:
        """A process stops in the middle of writing: nobody else can."""
        self._writer = Writer(self.path)
        self._writer.pause()

    def resume(self) -> None:
        """It goes on, and ends."""
        assert self._writer is not None
        self._writer.resume()

    def stop(self) -> None:
        """Delete it."""
        if self._writer is not None:
            self._writer.kill()
        shutil.rmtree(self._folder)
