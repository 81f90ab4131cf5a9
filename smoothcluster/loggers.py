"""The library's loggers, which the application's logging settings can neither silence by accident nor break.

`logging.config.dictConfig` and ``fileConfig`` disable every existing logger that the settings do not name. An
application that imports this library first would lose all warnings of the library. A handler or filter of the
application may raise, and a logging call would then end a thread of this library.
"""

import inspect
import logging
import traceback
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

LOGGER_NAMES = (
    "smoothcluster",
    "smoothcluster.cli",
    "smoothcluster.failure_detector.prober",
    "smoothcluster.memory.remote_watches",
    "smoothcluster.memory.served_client",
    "smoothcluster.lifetime",
    "smoothcluster.pool.children.worker",
    "smoothcluster.pool.event_loop",
    "smoothcluster.pool.run",
    "smoothcluster.sqlite",
    "smoothcluster_etcd",
    "smoothcluster_redis",
    "smoothcluster_zookeeper",
    "smoothcluster_zookeeper.kazoo",
)
"""The names of all loggers of the library and of its adapters."""

if TYPE_CHECKING:
    _Base = logging.Logger
else:
    _Base = object


class _Lasting(_Base):
    """A part of a logger's class. A plain ``logger.disabled = True`` still works."""

    @property
    def disabled(self) -> bool:
        return bool(vars(self).get("disabled", False))

    @disabled.setter
    def disabled(self, value: bool) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        if _name_of_caller() != "logging.config":
            vars(self)["disabled"] = value

    def handle(self, record: logging.LogRecord) -> None:
        try:
            super().handle(record)
        except Exception:  # noqa: BLE001 - a filter or handler of the application
            # As `logging` does if a message cannot be formatted; standard error may be closed.
            with suppress(Exception):
                traceback.print_exc()


def _name_of_caller() -> object:
    """The module that has called the function which asks; None if unknown."""
    here = inspect.currentframe()
    asking = here.f_back if here is not None else None
    caller = asking.f_back if asking is not None else None
    return caller.f_globals.get("__name__") if caller is not None else None


def keep_loggers(names: Iterable[str] = LOGGER_NAMES) -> None:
    """Make the loggers with these *names* last. Repeatable."""
    for name in names:
        logger = logging.getLogger(name)
        kind = type(logger)  # An application may have set a class of its own.
        if not issubclass(kind, _Lasting):
            logger.__class__ = type(kind.__name__, (_Lasting, kind), {})
