"""Knowing that a process is dead long before its lease ends: its kernel closes its sockets.

Every member listens on a port and greets whoever connects with its name and incarnation.
Others connect, read the greeting, hold the connection, and dial again when it ends.

Only two things prove that an incarnation is over, and only to a prober that was greeted by
that incarnation at that address before:

* the address *refuses* a connection: the process is gone;
* the same member greets there with *another* incarnation: it began again.

Everything else proves nothing. A dying listener may still accept for an instant. Silence is
what a stopped process, a busy one, or a cut cable sounds like. A refusal by an address that
never greeted may come from the wrong machine: addresses repeat among containers, and a name
or address that means loopback leads a remote prober to itself.

Safety: even a proof may be wrong (a firewall that starts to refuse looks like a death), so
it may only ever lead to guarded moves that fence the old owner off.
"""

from smoothcluster.failure_detector.listener import Listener
from smoothcluster.failure_detector.prober import Peer, Prober, Proof

__all__ = ["Listener", "Peer", "Prober", "Proof"]
