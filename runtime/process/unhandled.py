"""Log lines for exceptions that nobody handles, and for Python's warnings."""

import logging
import sys
import threading
import warnings
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

_LOGGER = "sevenfold.unhandled"

# asyncio's messages begin with one of these. What follows is written by agents: arguments, messages of exceptions.
_ASYNCIO_MESSAGES = (
    "Task exception was never retrieved",
    "Future exception was never retrieved",
    "Exception in callback",
    "Task was destroyed but it is pending!",
    "Unhandled exception in event loop",
)


class AsyncioFilter(logging.Filter):
    """Shortens asyncio's records to what asyncio itself writes; their exception is rendered as any other."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Lets every record pass."""
        if record.levelno >= logging.WARNING:
            text = record.getMessage()
            known = (one for one in _ASYNCIO_MESSAGES if text.startswith(one))
            record.msg, record.args = next(known, "asyncio reported an error"), ()
        return True


def log_unhandled(*, hide_messages: bool) -> None:
    """Logs the exceptions of threads and finalizers, which Python prints to standard error. `hide_messages`: without
    their messages, and warnings without their text, since both may quote what a client sent.
    """
    log = logging.getLogger(_LOGGER)

    def report_thread(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None and not isinstance(args.exc_value, SystemExit):
            found = (args.exc_type, args.exc_value, args.exc_traceback)
            log.error("an exception ended a thread", exc_info=found)

    def report_unraisable(args: "UnraisableHookArgs") -> None:
        if args.exc_value is not None:
            log.error("an exception was ignored", exc_info=(args.exc_type, args.exc_value, args.exc_traceback))

    def report_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        log.critical("an exception ended the process", exc_info=(kind, error, trace))

    def report_warning(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        log.warning("%s at %s:%s", category.__name__, filename, lineno)

    threading.excepthook = report_thread
    sys.unraisablehook = report_unraisable
    if hide_messages:
        sys.excepthook = report_uncaught
        warnings.showwarning = report_warning
        logging.getLogger("asyncio").addFilter(AsyncioFilter())
