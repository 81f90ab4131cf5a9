"""The folder of the store: a single file with the whole state, replaced by the holder of the lock."""

import fcntl
import os
import tempfile
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar, final

from smoothcluster.clock import SYSTEM_CLOCK
from smoothcluster.errors import BackendError, UnavailableError
from smoothcluster.lifetime import ClientLifetime
from smoothcluster_files.errors import translate
from smoothcluster_files.state import CLOCK_STEP_CAP_SECONDS, State

Answer = TypeVar("Answer")

_BOOT_ID_FILE = Path("/proc/sys/kernel/random/boot_id")


@final
class Folder:
    """The store in the folder *path*. A call waits at most *timeout* seconds for the lock, plus time for the disk."""

    def __init__(self, path: Path, timeout: float, lifetime: ClientLifetime) -> None:
        self.path, self.timeout, self.lifetime = path, timeout, lifetime
        self._file, self._lock = path / "store.json", path / "lock"
        self._boot = _BOOT_ID_FILE.read_text().strip() if _BOOT_ID_FILE.exists() else "unknown"
        self._known: tuple[object, State] = (None, State())
        self._guard = threading.Lock()

    def read(self) -> State:
        """Return the current state; callers must not change the state. Raise UnavailableError."""
        state = self._read_state()
        if state.leases and SYSTEM_CLOCK.monotonic() - state.machine > CLOCK_STEP_CAP_SECONDS / 2:
            # The clock advances only with changes. A reader may wait for a lease to end, so readers advance the clock.
            return self.change(State.copy)
        return state

    def silent(self, leases: Iterable[str]) -> frozenset[str]:
        """Return the ids among *leases* without a renewal for their time. Raise UnavailableError."""
        return self.read().silent(leases, SYSTEM_CLOCK.monotonic(), self._boot)

    def change(self, act: Callable[[State], Answer], unknown: type[BackendError] = UnavailableError) -> Answer:
        """Store the state as changed by *act*, unless *act* raises. Raise *unknown* if the outcome is unknown."""
        lock = self._take()
        try:
            state = self._read_state().copy()
            state.pass_time(SYSTEM_CLOCK.monotonic(), self._boot)
            answer = act(state)
            self._write(state, unknown)
            return answer
        finally:
            os.close(lock)  # Closing the file releases the lock.

    def _take(self) -> int:
        """Take the lock and return an open file. The lock excludes other processes and other threads alike."""
        self.lifetime.check()
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise translate(error, str(self.path)) from error
        deadline = SYSTEM_CLOCK.monotonic() + self.timeout
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if SYSTEM_CLOCK.monotonic() < deadline:
                    SYSTEM_CLOCK.sleep(0.001)
                    continue
                os.close(lock)
                message = f"the folder {self.path} is locked by another process, for longer than {self.timeout:g} s"
                raise UnavailableError(message) from None
            return lock

    def _read_state(self) -> State:
        """Return the state in the file. Each change makes another file, so a file already known is not read again."""
        self.lifetime.check()
        try:
            with self._file.open("rb") as file:
                status = os.fstat(file.fileno())
                which = (status.st_ino, status.st_mtime_ns, status.st_size)
                with self._guard:
                    if self._known[0] == which:
                        return self._known[1]
                state = State.from_bytes(file.read())
        except FileNotFoundError:
            return State()
        except OSError as error:
            raise translate(error, str(self.path)) from error
        except ValueError as error:
            raise UnavailableError(f"{self._file} was written by somebody else: {error}") from None
        with self._guard:
            if state.number >= self._known[1].number:
                self._known = (which, state)
        return state

    def _write(self, state: State, unknown: type[BackendError]) -> None:
        """Write a new file to the disk, replace the old file, and return when the disk has the replacement."""
        doubt: type[BackendError] = UnavailableError
        try:
            handle, name = tempfile.mkstemp(dir=self.path, prefix="new-")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(state.to_bytes())
                    file.flush()
                    os.fsync(handle)
                doubt = unknown
                Path(name).replace(self._file)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
            folder = os.open(self.path, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise translate(error, str(self.path), doubt) from error
