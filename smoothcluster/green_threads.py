"""A check for green threads: members and clients of a group need real threads.

With gevent or eventlet, all threads of a process take turns in a single thread. A handler that computes would hold up
the heartbeats of the lease, and other members would take the process for dead. The failure detector closes descriptors
in a separate thread, and would close the descriptors of the whole process. Watches of a client on sqlite would never
wake, and a client on etcd would hang: drivers in C wait without giving way to other green threads.
"""

import sys
from collections.abc import Callable
from typing import cast

from smoothcluster.errors import UsageError

_NEEDED_MODULES = ("thread", "threading", "socket", "select", "selectors", "queue", "os", "signal", "subprocess")
"""Modules of the standard library that smoothcluster needs as they are."""

_PATCH_CHECKS = {"gevent.monkey": "is_module_patched", "eventlet.patcher": "is_monkey_patched"}
"""For each library, the module with the patch, and the function to ask whether a module is patched."""


def refuse_green_threads() -> None:
    """Raise UsageError if gevent or eventlet has replaced modules that smoothcluster needs."""
    for library, check in _PATCH_CHECKS.items():
        is_patched = cast("Callable[[str], bool] | None", getattr(sys.modules.get(library), check, None))
        patched = [name for name in _NEEDED_MODULES if is_patched is not None and is_patched(name)]
        if patched:
            package = library.partition(".")[0]
            raise UsageError(
                f"smoothcluster needs real threads, but {package} has replaced modules of this process"
                f" ({', '.join(patched)}): run members and clients in a process without monkey patching, for example"
                " with an async handler, or patch only in the programs that handlers start"
            )
