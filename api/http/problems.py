"""Errors as problem+json (RFC 9457): one table, one exception."""

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

from pydantic import Field

from sevenfold.contracts.payload import Payload
from sevenfold.contracts.runs import RunError
from sevenfold.contracts.verdicts import ErrorCode

MEDIA_TYPE = "application/problem+json"


class ProblemType(Enum):
    """Every problem there is: its `type` slug, HTTP status and title."""

    INVALID_JSON = ("invalid-json", 400, "The body is not valid JSON")
    BAD_REQUEST = ("bad-request", 400, "The request cannot be understood")
    FOREIGN_ORIGIN = ("foreign-origin", 403, "Another site's page may not call this gateway")
    NOT_FOUND = ("not-found", 404, "There is nothing here")
    METHOD_NOT_ALLOWED = ("method-not-allowed", 405, "This address does not take that method")
    NOT_ACCEPTABLE = ("not-acceptable", 406, "Nothing that this client accepts is offered here")
    CANCELLED = ("run-cancelled", 409, "The run was cancelled")
    TERMINATED = ("run-terminated", 409, "The run was ended by an operator")
    EVENT_CONFLICT = ("event-conflict", 409, "The event's id belongs to another event")
    EVENT_REFUSED = ("event-refused", 409, "The event was not passed on")
    SUBSCRIPTION_EXISTS = ("subscription-exists", 409, "There is a subscription of that name")
    SUBSCRIPTION_FIXED = ("subscription-fixed", 409, "The subscription stands in the configuration")
    SUBSCRIPTIONS_FULL = ("subscriptions-full", 409, "There is no room for more subscriptions")
    DEAD_LETTER_FINAL = ("dead-letter-final", 409, "The dead letter cannot be driven again")
    PAYLOAD_LOST = ("payload-lost", 410, "A stored payload is gone")
    STREAM_GONE = ("stream-gone", 410, "A part of the stream is gone")
    REQUEST_TIMEOUT = ("request-timeout", 408, "The request did not arrive in time")
    TOO_LARGE = ("too-large", 413, "The request is too large")
    UNSUPPORTED_MEDIA_TYPE = ("unsupported-media-type", 415, "The body is of a type that is not taken here")
    MISDIRECTED = ("misdirected-request", 421, "This gateway does not serve that host name")
    INVALID = ("invalid-request", 422, "The request does not fit")
    UPGRADE_REQUIRED = ("upgrade-required", 426, "The protocol has to be upgraded")
    KEY_REUSED = ("idempotency-key-reused", 422, "The idempotency key belongs to another request")
    AGENT_BUSY = ("agent-busy", 429, "The agent has as many calls as it may")
    HEAD_TOO_LARGE = ("head-too-large", 431, "The request's head is too large")
    INTERNAL = ("internal", 500, "Sevenfold failed")
    AGENT_FAILED = ("agent-failed", 502, "The agent failed")
    AGENT_REJECTED = ("agent-rejected", 502, "The agent will not do this")
    AGENT_UNAVAILABLE = ("agent-unavailable", 502, "The agent did not answer")
    AGENT_RATE_LIMITED = ("agent-rate-limited", 503, "The agent asks for a pause")
    CIRCUIT_OPEN = ("circuit-open", 503, "The agent is known to be down")
    DOCUMENT_UNAVAILABLE = ("document-unavailable", 502, "The document could not be fetched")
    TEMPORAL_UNAVAILABLE = ("temporal-unavailable", 503, "Temporal cannot be reached")
    TOO_MANY_CONNECTIONS = ("too-many-connections", 503, "There are too many connections")
    STORAGE_FULL = ("storage-full", 507, "There is no room to write")
    STORAGE_UNAVAILABLE = ("storage-unavailable", 503, "A store is out of reach")
    DEADLINE_EXCEEDED = ("deadline-exceeded", 504, "The run's time is over")

    def __init__(self, slug: str, status: int, title: str) -> None:
        self.type = f"urn:sevenfold:problem:{slug}"
        self.status = status
        self.title = title


_TYPE_OF_CODE = {
    ErrorCode.AGENT_FAILED: ProblemType.AGENT_FAILED,
    ErrorCode.AGENT_UNAVAILABLE: ProblemType.AGENT_UNAVAILABLE,
    ErrorCode.AGENT_RATE_LIMITED: ProblemType.AGENT_RATE_LIMITED,
    ErrorCode.AGENT_REJECTED: ProblemType.AGENT_REJECTED,
    ErrorCode.AGENT_BUSY: ProblemType.AGENT_BUSY,
    ErrorCode.CIRCUIT_OPEN: ProblemType.CIRCUIT_OPEN,
    ErrorCode.DOCUMENT_UNAVAILABLE: ProblemType.DOCUMENT_UNAVAILABLE,
    ErrorCode.DOCUMENT_UNREADABLE: ProblemType.INVALID,
    ErrorCode.DEADLINE_EXCEEDED: ProblemType.DEADLINE_EXCEEDED,
    ErrorCode.PAYLOAD_LOST: ProblemType.PAYLOAD_LOST,
    ErrorCode.EVENT_REFUSED: ProblemType.EVENT_REFUSED,
    ErrorCode.TOO_MANY_FAILURES: ProblemType.AGENT_REJECTED,
    ErrorCode.TERMINATED: ProblemType.TERMINATED,
    ErrorCode.INTERNAL: ProblemType.INTERNAL,
}


class FieldError(Payload):
    """One mistake in a request: where (RFC 6901 into the body, or `header:`/`query:`/`path:` and a name) and what."""

    pointer: str
    detail: str


class Problem(Payload):
    """The body of every error."""

    type: str = Field(
        description="One of a fixed list; docs/errors.md explains each.",
        json_schema_extra={"enum": [*sorted(kind.type for kind in ProblemType)]},
    )
    title: str
    status: int
    detail: str
    request_id: str
    errors: list[FieldError] | None = Field(default=None, description="For requests that do not fit.")
    code: ErrorCode | None = Field(default=None, description="For runs that failed.")
    attempts: int | None = Field(default=None, description="For runs that failed.")
    run_id: str | None = Field(default=None, description="The run in question, if there is one.")


class ProblemError(Exception):
    """Raised anywhere in a door; the one handler in `sevenfold.api.http.problem_handlers` renders it."""

    def __init__(
        self,
        problem_type: ProblemType,
        detail: str,
        *,
        errors: Sequence[FieldError] = (),
        retry_after: float | None = None,
        headers: Mapping[str, str] | None = None,
        **members: Any,
    ) -> None:
        super().__init__(detail)
        self.problem_type = problem_type
        self.detail = detail
        self.errors = list(errors)
        self.retry_after = retry_after
        self.headers = dict(headers or {})
        self.members = members

    def body(self, request_id: str) -> Problem:
        """The problem as it is sent."""
        return Problem(
            type=self.problem_type.type,
            title=self.problem_type.title,
            status=self.problem_type.status,
            detail=self.detail,
            request_id=request_id,
            errors=self.errors or None,
            **self.members,
        )


def escape_pointer(key: str) -> str:
    """A key as it stands in a pointer (RFC 6901, section 3)."""
    return key.replace("~", "~0").replace("/", "~1")


def invalid_field(pointer: str, detail: str) -> ProblemError:
    """A request that does not fit, for one reason."""
    return ProblemError(
        ProblemType.INVALID, f"{pointer}: {detail}", errors=[FieldError(pointer=pointer, detail=detail)]
    )


def not_found(what: str) -> ProblemError:
    """A 404. `what` names what was looked for."""
    return ProblemError(ProblemType.NOT_FOUND, f"{what} does not exist, or is older than the retention.")


def run_failure(run_id: str, error: RunError) -> ProblemError:
    """The problem that a failed run is to a client that waited for it."""
    if error.pointer is not None:
        problem = invalid_field(error.pointer, error.detail)
    else:
        problem = ProblemError(_TYPE_OF_CODE[error.code], error.detail, retry_after=error.retry_after)
    problem.members |= {"run_id": run_id, "code": error.code, "attempts": error.attempts}
    return problem
