"""One line per failed attempt of an activity, in place of the SDK's: where it failed and why; its traceback once per
run.
"""

import logging

from cachetools import LRUCache
from temporalio.exceptions import ApplicationError

from sevenfold.adapters.agents.error_boundary import is_converted
from sevenfold.adapters.agents.places import find_error_place
from sevenfold.contracts.agents.errors import ErrorCode
from sevenfold.contracts.identity import parse_public_id
from sevenfold.contracts.runs.run import RunError

# The fields that such a line has beside those of every line.
FIELDS = ("activity", "run_id", "attempt", "code", "at", "error")

_LOGGER = "sevenfold.activities"

# No attempt was made: the circuit is open, or the agent's limits or the budget are used up.
_REFUSALS = (ErrorCode.CIRCUIT_OPEN, ErrorCode.AGENT_BUSY, ErrorCode.QUOTA_EXCEEDED)

# How the SDK marks its line.
_MARK, _ACTIVITY_FAILURE = "__temporal_error_identifier", "ActivityFailure"

_MAX_RUNS = 10_000
_MAX_TEXT = 300


class FailureFilter(logging.Filter):
    """Rewrites the SDK's line about a failed activity. `hide_messages`: an exception is shown by its type alone,
    because its message may quote what a client sent.
    """

    def __init__(self, *, hide_messages: bool) -> None:
        super().__init__()
        self._hide_messages = hide_messages
        self._seen: LRUCache[str, bool] = LRUCache(_MAX_RUNS)

    def filter(self, record: logging.LogRecord) -> bool:
        """Lets other records pass; ours by the level of its own logger."""
        if getattr(record, _MARK, None) != _ACTIVITY_FAILURE or not record.exc_info:
            return True
        self._rewrite(record, record.exc_info[1])
        return record.levelno >= logging.getLogger(record.name).getEffectiveLevel()

    def _rewrite(self, record: logging.LogRecord, error: BaseException | None) -> None:
        if not isinstance(error, ApplicationError) or error.type not in list(ErrorCode):
            return  # Not expected, so everything about it is shown.
        activity = getattr(record, "temporal_activity", {})
        run_id = parse_public_id(str(activity.get("workflow_id", "")))
        origin = _find_origin(error)
        record.name, record.args = _LOGGER, ()
        if error.type in _REFUSALS:
            record.msg, record.levelno, record.levelname = "call refused", logging.INFO, "INFO"
        else:
            record.msg = "attempt failed"
        fields = {
            "activity": activity.get("activity_type"),
            "run_id": run_id,
            "attempt": _find_attempt(error) or activity.get("attempt"),
            "code": str(error.type),
            "at": find_error_place(origin),
            "error": self._describe(origin),
        }
        vars(record).update({name: value for name, value in fields.items() if value})
        is_first = run_id not in self._seen
        self._seen[run_id] = True
        has_traceback = is_first and origin is not error
        record.exc_info = (type(origin), origin, origin.__traceback__) if has_traceback else None
        record.exc_text = None

    def _describe(self, error: BaseException) -> str:
        text = "" if self._hide_messages else str(error)[:_MAX_TEXT]
        name = type(error).__name__
        return f"{name}: {text}" if text else name


def _find_attempt(error: ApplicationError) -> int | None:
    """Returns the attempt of the run; Temporal's own number is that of the activity."""
    detail = error.details[0] if error.details else None
    return detail.attempts if isinstance(detail, RunError) else None


def _find_origin(error: BaseException) -> BaseException:
    """Returns what the agent raised, if it raised anything; else the failure itself."""
    while error.__cause__ is not None and (isinstance(error, ApplicationError) or is_converted(error)):
        error = error.__cause__
    return error
