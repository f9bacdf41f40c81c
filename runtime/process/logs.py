"""Structured logs: readable on a terminal, JSON lines elsewhere."""

import json
import logging
import sys
import time
import traceback
from collections.abc import Mapping
from typing import Any

import structlog
from structlog.typing import ExcInfo, Processor

from sevenfold.runtime.process.failure_logs import FIELDS, FailureFilter
from sevenfold.runtime.process.unhandled import log_unhandled

# Rate limit per warning or error: at most 20 lines per 10 s. The first line of the next period counts the others.
_REPETITIONS = 20
_PERIOD_SECONDS = 10.0
_REMEMBERED = 500


class RepetitionFilter(logging.Filter):
    """Keeps a fault that repeats thousands of times a second from filling the disk."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is written."""
        if record.levelno < logging.WARNING:
            return True
        now = time.monotonic()
        event = record.msg.get("event", "") if isinstance(record.msg, dict) else record.msg
        # Failures at different places of agents' code are different faults.
        key = (record.name, f"{str(event)[:200]} {getattr(record, 'at', '')}")
        since, count = self._seen.get(key, (now, 0))
        if now - since > _PERIOD_SECONDS:
            if count > _REPETITIONS and isinstance(record.msg, dict):
                record.msg["repeated"] = count - _REPETITIONS
            elif count > _REPETITIONS:
                record.repeated = count - _REPETITIONS
            since, count = now, 0
        if len(self._seen) > _REMEMBERED:
            self._seen.clear()
        self._seen[key] = (since, count + 1)
        return count < _REPETITIONS


def format_without_messages(exc_info: ExcInfo) -> str:
    """Formats an exception and its causes as Python does, but without messages and source lines."""
    parts: list[str] = []
    error: BaseException | None = exc_info[1]
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        frames = traceback.extract_tb(error.__traceback__)
        lines = [f'  File "{frame.filename}", line {frame.lineno}, in {frame.name}' for frame in frames]
        parts.append("\n".join([*lines, f"{type(error).__module__}.{type(error).__qualname__}"]))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\n\n".join(reversed(parts))


# Secrets that libraries may quote in their errors, as the log would write them.
_hidden: set[str] = set()
_MIN_HIDDEN_LENGTH = 4


def hide_in_logs(secret: str) -> None:
    """Replaces the secret by asterisks in all lines from now on; a very short one only within a URL, since
    it is part of other words too.
    """
    for text in {secret, json.dumps(secret)[1:-1], repr(secret)[1:-1]}:
        _hidden.add(text if len(text) >= _MIN_HIDDEN_LENGTH else f":{text}@")


def _hide_secrets(_: object, __: str, line: Any) -> str:
    text = str(line)
    for secret in sorted(_hidden, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def _shorten(_: object, __: str, event: Any) -> Any:
    """Removes ids and the only tenant from a terminal's lines, unless they are warnings."""
    if event.get("level") not in ("info", "debug"):
        return event
    hidden = {"request_id", "trace_id", "logger", *(["tenant"] if event.get("tenant") == "default" else [])}
    return {name: value for name, value in event.items() if name not in hidden}


def configure_logs(levels: Mapping[str, str], *, hide_messages: bool = False) -> None:
    """Renders our own, uvicorn's and Temporal's log lines alike, to standard error. `levels`: by logger; that of the
    empty name is for all others. `hide_messages`: exceptions are shown without their messages, which may quote what a
    client sent.
    """
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    on_terminal = sys.stderr.isatty()
    last: list[Processor] = (
        # Plain, because the rich traceback prints every local variable, including secrets.
        [_shorten, structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
        if on_terminal
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    if hide_messages:
        last.insert(0, structlog.processors.ExceptionRenderer(format_without_messages))
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder(allow=(*FIELDS, "repeated"))],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last, _hide_secrets],
        )
    )
    handler.addFilter(FailureFilter(hide_messages=hide_messages))
    handler.addFilter(RepetitionFilter())
    log_unhandled(hide_messages=hide_messages)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(levels[""].upper())
    if hide_messages:  # At the level debug, the SDK logs whole heartbeats and results.
        logging.getLogger("temporalio").setLevel(max(logging.INFO, root.level))
    # `temporalio.worker`: six identical lines at each stop.
    for noisy in ("httpx", "httpcore", "watchfiles", "temporalio.worker"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # It writes the address of each WebSocket with the client's query, and at `debug` the handshake with its key.
    logging.getLogger("uvicorn.error").setLevel(max(logging.WARNING, logging.getLogger().level))
    for name, level in levels.items():
        if name:
            logging.getLogger(name).setLevel(level.upper())
    if "temporalio.activity" not in levels:  # FailureFilter takes its lines for `sevenfold.activities`.
        logging.getLogger("temporalio.activity").setLevel(logging.WARNING)
