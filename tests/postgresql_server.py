"""Real PostgreSQL servers for tests: plain processes on free ports of the loopback, ended by their pid."""

import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import final

from servers import Server, not_installed

USER = "postgres"
"""The server refuses to run as root: then it runs as this user of the Debian package."""


@final
class PostgresqlServer(Server):
    """One PostgreSQL server with a database ``items``. A crash loses nothing that was committed."""

    scheme = "postgresql+psycopg"

    @property
    def url(self) -> str:
        """Its database, as a results sink takes it."""
        return f"{super().url}/items"

    def command(self) -> Sequence[str]:
        """Itself, after making its data at the first start."""
        programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
        if not programs:
            not_installed("postgres", "postgresql")
        if not (self.folder / "data").exists():
            self._init(programs[-1].parent)
        settings = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": self.folder,
            "max_connections": 30,
        }
        lines = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [*_as_user(), str(programs[-1]), "-D", str(self.folder / "data"), *lines]

    def _init(self, programs: Path) -> None:
        if os.geteuid() == 0:
            shutil.chown(self.folder, USER, USER)
        command = [*_as_user(), str(programs / "initdb"), "--no-sync", "-A", "trust", "-U", "crawler", "-E", "UTF8"]
        subprocess.run([*command, "-D", self.folder / "data"], check=True, capture_output=True, cwd=self.folder)
        single = [*_as_user(), str(programs / "postgres"), "--single", "-D", str(self.folder / "data"), "postgres"]
        subprocess.run(single, input=b"CREATE DATABASE items\n", check=True, capture_output=True, cwd=self.folder)

    def answers(self) -> bool:
        """Whether it serves."""
        import psycopg

        try:
            psycopg.connect(f"host=127.0.0.1 port={self.port} user=crawler dbname=items", connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def stop(self) -> None:
        """End it without waiting for its clients."""
        self._end(signal.SIGINT)
        super().stop()

    def kill(self) -> None:
        """Crash it: SIGQUIT, so that its child processes end with it. What was committed is in its folder."""
        self._end(signal.SIGQUIT)


def _as_user() -> list[str]:
    if os.geteuid() != 0:
        return []
    user = pwd.getpwnam(USER)
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
