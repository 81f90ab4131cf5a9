"""The folder: one file with everything, replaced as a whole by whoever holds the lock."""

import fcntl
import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, final

from smoothcluster.clock import SYSTEM_CLOCK
from smoothcluster.errors import BackendError, UnavailableError
from smoothcluster_files.errors import translate
from smoothcluster_files.state import CAP, State

Answer = TypeVar("Answer")

_BOOT = Path("/proc/sys/kernel/random/boot_id")


@final
class Folder:
    """The store in the folder *path*. A call waits for *timeout* seconds at most, beside what the disk takes."""

    def __init__(self, path: Path, timeout: float) -> None:
        self.path, self.timeout = path, timeout
        self.closed = False
        self._file, self._lock = path / "store.json", path / "lock"
        self._boot = _BOOT.read_text().strip() if _BOOT.exists() else "unknown"
        self._known: tuple[object, State] = (None, State())
        self._guard = threading.Lock()

    def read(self) -> State:
        """What there is now; not to be changed. Raise UnavailableError."""
        state = self._look()
        if state.leases and SYSTEM_CLOCK.monotonic() - state.machine > CAP / 2:
            # Somebody has to let time pass. Whoever waits for a lease's end reads, and so does it.
            return self.change(State.copy)
        return state

    def change(self, act: Callable[[State], Answer], unknown: type[BackendError] = UnavailableError) -> Answer:
        """Have *act* change the state and keep that, unless it raises. Raise *unknown* if it may have been kept."""
        lock = self._take()
        try:
            state = self._look().copy()
            state.pass_time(SYSTEM_CLOCK.monotonic(), self._boot)
            answer = act(state)
            self._write(state, unknown)
            return answer
        finally:
            os.close(lock)  # Which gives the lock back.

    def _take(self) -> int:
        """The lock, as an open file: of threads of one process, too, only one has it."""
        if self.closed:
            raise UnavailableError("closed")
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

    def _look(self) -> State:
        """The state in the file. Each is another file, so one that is known need not be read again."""
        if self.closed:
            raise UnavailableError("closed")
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
        """Put a new file, which is on the disk by then, in the old one's place; that is on the disk when we return."""
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
