"""Processes and ports for the tests of the failure detector."""

from collections.abc import Callable, Iterator

import pytest
from neighbours import LOOPBACK, Process

from smoothcluster.failure_detector import ListenAddress, Listener


@pytest.fixture
def processes() -> Iterator[Callable[..., Process]]:
    """Starts members that end with the test."""
    made: list[Process] = []

    def start(incarnation: str = "i1", host: str = LOOPBACK, *, apart: bool = True) -> Process:
        made.append(Process(incarnation, host, apart=apart))
        return made[-1]

    yield start
    for process in made:
        process.end()


@pytest.fixture
def listener() -> Iterator[Listener]:
    """Greets as incarnation i1 of m in g."""
    made = Listener(ListenAddress(LOOPBACK))
    made.announce("g", "m", "i1")
    yield made
    made.close()
