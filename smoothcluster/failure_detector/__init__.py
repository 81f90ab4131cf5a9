"""The failure detector: notices a dead process long before the lease ends, because the kernel closes the sockets.

Every member runs a `Listener`, which greets each caller with the name and incarnation of the member. Other members run
a `Prober`, which connects, reads the greeting, holds the connection, and dials again when the connection ends::

    WAITING --dial--> CONNECTING --> CONNECTED --greeting--> HELD --connection ends--> WAITING
                      or OVER: REFUSED   or OVER: REPLACED

Parts: `listener` greets, `prober` watches, `sockets` makes the sockets for both, `listen_address` reads the option
*listen*.

Invariants: only two observations prove that an incarnation is over, and only to a prober whose last greeted connection
to the incarnation was closed in order (by FIN):

* within some seconds after the close, the address *refuses* a connection: the process is gone;
* the same member greets there with *another* incarnation: the member has joined again.

The kernel of a dead process closes a held connection by FIN, because a prober sends no data which the process could
leave unread. A living listener closes a held connection by FIN only when the announced incarnation is over; to make
room, the listener resets connections. So a held connection which ends by an error (RST, timeout, ICMP) is no evidence:
a firewall has begun to reject, a machine has restarted, or a cable is cut. Such an end takes the greeting along: the
incarnation must greet again before anything proves its death. Connections without a greeting are no evidence for either
side: a kernel resets the connections which a dead process has not accepted.

Everything else proves nothing. A dying listener may still accept for an instant. A stopped process, a busy process and
a cut cable all look like silence. A refusal by an address that never greeted may come from the wrong machine: addresses
repeat among containers, and a name or address that means loopback leads a remote prober back to the same machine.

On failure: even a proof may be wrong (a proxy between two members closes in order, then refuses). A proof may therefore
lead only to guarded moves that fence the old owner off. Without a proof the lease decides. An exception of the
`Prober`'s callback is logged, and the other peers stay watched.

Begin reading with `prober.Prober`, then `listener.Listener`.
"""

from smoothcluster.failure_detector.listen_address import ListenAddress, listen_address
from smoothcluster.failure_detector.listener import Listener
from smoothcluster.failure_detector.prober import Peer, Prober, Proof

__all__ = ["ListenAddress", "Listener", "Peer", "Prober", "Proof", "listen_address"]
