"""What stands between a client and a server, and may let nothing pass."""

import secrets
import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import final


@final
class Proxy:
    """A port that leads to another one, or a socket's path to another's, until it is cut: then nothing passes and
    nobody is told.

    What was sent while it was cut arrives after `mend`, as on a network, if both ends still wait for it.
    """

    def __init__(self, target: int | Path) -> None:
        self._target = target
        self._open = threading.Event()
        self._open.set()
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._deaf = False
        if isinstance(target, int):
            self._listener = socket.create_server(("127.0.0.1", 0))
            self.port: int = self._listener.getsockname()[1]
        else:
            self.path = target.with_name(f"proxy-{secrets.token_hex(4)}")
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(str(self.path))
            self._listener.listen()
        self._run(self._accept)

    @property
    def hosts(self) -> str:
        """What kazoo and `ZookeeperBackend` take."""
        return f"127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Let nothing pass."""
        self._open.clear()

    def mend(self) -> None:
        """Let all pass again, and what was held back first."""
        self._open.set()

    def swallow_answers(self, *, on: bool) -> None:
        """From now on the server is told everything, and what it says is lost."""
        self._deaf = on

    def reset(self) -> None:
        """Break every connection, as a network that comes back may do."""
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End it and its threads."""
        self._open.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self.reset()
        for thread in self._threads:
            thread.join()
        for each in (*self._sockets, self._listener):
            each.close()

    def _run(self, what: object, *args: object) -> None:
        assert callable(what)
        thread = threading.Thread(target=what, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                inner = self._listener.accept()[0]
            except OSError:
                return
            self._open.wait()
            try:
                outer = self._dial()
            except OSError:
                inner.close()
                continue
            outer.settimeout(None)
            if isinstance(self._target, int):
                for each in (inner, outer):  # As clients and servers do: else a second request waits for an ACK.
                    each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets += [inner, outer]
            self._run(self._pump, inner, outer, False)
            self._run(self._pump, outer, inner, True)

    def _dial(self) -> socket.socket:
        if isinstance(self._target, int):
            return socket.create_connection(("127.0.0.1", self._target), 5.0)
        outer = socket.socket(socket.AF_UNIX)
        try:
            outer.connect(str(self._target))
        except OSError:
            outer.close()
            raise
        return outer

    def _pump(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self._open.wait()
                if not (answers and self._deaf):
                    sink.sendall(data)
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
