"""Results sinks that are open, by URL: a member or a client opens each sink once, when the sink is needed."""

import threading
from typing import final

from smoothcluster.sinks.opening import open_sink
from smoothcluster.sinks.protocol import ResultSink


@final
class OpenSinks:
    """Opens sinks with the options of the environment."""

    def __init__(self) -> None:
        self._sinks: dict[str, ResultSink] = {}
        self._lock = threading.Lock()

    def get(self, url: str) -> ResultSink:
        """Return the sink for *url*. Raise UsageError if the sink cannot be opened here."""
        with self._lock:
            if url not in self._sinks:
                self._sinks[url] = open_sink(url)
            return self._sinks[url]

    def close(self) -> None:
        """Close all sinks. Repeatable."""
        with self._lock:
            sinks, self._sinks = [*self._sinks.values()], {}
        for sink in sinks:
            sink.close()
