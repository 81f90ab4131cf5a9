"""The inbox of a member: messages from other threads to the thread of the loop."""

from collections import deque
from typing import final

from smoothcluster.clock import Clock


@final
class Inbox:
    """Proofs of death, the request to leave, and the signal that wakes the loop. Any thread may call the methods.

    Every sender stores the message first and sets the signal second. The loop clears the signal first and reads the
    messages second. So a message is read in the present turn of the loop, or the signal leads to another turn.
    """

    def __init__(self, clock: Clock) -> None:
        self.wake = clock.signal()
        """Set when the loop has a reason for a turn."""
        self.leaving = clock.signal()
        """Set once the member is to leave."""
        self.proofs: deque[tuple[str, float]] = deque()
        """Incarnations with a dead process, each with the seconds from the end of the connection to the proof."""

    def proved_gone(self, incarnation: str, after: float = 0.0) -> None:
        """Take in a proof that the process of *incarnation* is dead. The failure detector calls this.

        *after* is the number of seconds from the end of the connection to the proof.
        """
        self.proofs.append((incarnation, after))
        self.wake.set()

    def ask_to_leave(self) -> None:
        """Have `MemberLoop.run` leave the group: no more tasks start, and running tasks get the grace period."""
        self.leaving.set()
        self.wake.set()

    def ring(self) -> None:
        """Wake the loop. The pool calls this for every finished task, so a signal already set costs no lock.

        No run is missed: the pool adds the run to `finished` before this test, and the loop clears the signal before
        the loop takes out the runs.
        """
        if not self.wake.is_set():
            self.wake.set()
