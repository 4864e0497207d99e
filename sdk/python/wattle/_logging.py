"""The module `logging`, whose records are log lines of the subscriber, each with its event."""

import logging

from . import _trace
from ._bus import bus


class LogHandler(logging.Handler):
    """Writes records to the bus, which filters them by level."""

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            message += f": {_trace.describe(record.exc_info[1])}"
        bus.log(_level(record.levelno), "" if record.name == "root" else record.name, message)


def _level(number: int) -> str:
    if number < logging.DEBUG:
        return "trace"
    if number < logging.INFO:
        return "debug"
    if number < logging.WARNING:
        return "info"
    return "warn" if number < logging.ERROR else "error"


def install() -> None:
    """Puts it in the place of what `logging` does by default. All levels pass: the bus filters."""
    root = logging.getLogger()
    root.handlers = [LogHandler()]
    root.setLevel(1)
    logging.raiseExceptions = False
