"""Errors as problem+json (RFC 9457): a table of types, and one exception."""

import math
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

from pydantic import Field

from sevenfold.api.http.rate_limit_headers import rate_limit_headers
from sevenfold.contracts.agents.errors import ErrorCode
from sevenfold.contracts.agents.usage import ExceededQuota, UsageTotals
from sevenfold.contracts.payload import Payload
from sevenfold.contracts.runs.run import RunError

MEDIA_TYPE = "application/problem+json"

# Where a type is explained. A path, so that a type is the same at every address of a gateway.
PROBLEM_PREFIX = "/problems"


class ProblemType(Enum):
    """All problems: the name at the end of `type`, the HTTP status and the title. problems.toml explains them."""

    INVALID_JSON = ("invalid-json", 400, "The body is not valid JSON")
    BAD_REQUEST = ("bad-request", 400, "The request cannot be understood")
    UNAUTHORIZED = ("unauthorized", 401, "The request has no valid credential")
    FORBIDDEN = ("forbidden", 403, "The credential does not permit this")
    FOREIGN_ORIGIN = ("foreign-origin", 403, "Pages of this origin may not call the gateway")
    NOT_FOUND = ("not-found", 404, "The resource does not exist")
    METHOD_NOT_ALLOWED = ("method-not-allowed", 405, "The path does not support this method")
    NOT_ACCEPTABLE = ("not-acceptable", 406, "No media type that the client accepts is available")
    RUN_COMPLETED = ("run-completed", 409, "The run has completed")
    CANCELLED = ("run-cancelled", 409, "The run was cancelled")
    TERMINATED = ("run-terminated", 409, "An operator terminated the run")
    RUN_ENDED = ("run-ended", 409, "The run has ended")
    RUN_OPEN = ("run-open", 409, "The run has not ended")
    QUESTION_ANSWERED = ("question-answered", 409, "The question is not open any more")
    EVENT_CONFLICT = ("event-conflict", 409, "The event's id belongs to another event")
    EVENT_REFUSED = ("event-refused", 409, "The event was refused")
    TENANT_EXISTS = ("tenant-exists", 409, "A tenant or key with this name exists")
    TENANT_ERASED = ("tenant-erased", 409, "The tenant's data are being erased")
    KEY_REPLACED = ("key-replaced", 409, "The key has expired or was rotated already")
    ACCESS_FIXED = ("access-fixed", 409, "The tenant or key is part of the configuration")
    REGISTRY_FULL = ("registry-full", 409, "The maximum number of tenants and keys is reached")
    TOKENS_UNAVAILABLE = ("tokens-unavailable", 409, "The gateway cannot sign run tokens")
    SUBSCRIPTION_EXISTS = ("subscription-exists", 409, "A subscription with this name exists")
    SUBSCRIPTION_FIXED = ("subscription-fixed", 409, "The subscription is part of the configuration")
    SUBSCRIPTIONS_FULL = ("subscriptions-full", 409, "The maximum number of subscriptions is reached")
    ENDPOINT_EXISTS = ("endpoint-exists", 409, "A webhook endpoint with this name exists")
    ENDPOINTS_FULL = ("endpoints-full", 409, "The maximum number of webhook endpoints is reached")
    ENDPOINTS_UNAVAILABLE = ("endpoints-unavailable", 409, "The gateway cannot seal the secrets of endpoints")
    DEAD_LETTER_FINAL = ("dead-letter-final", 409, "The dead letter cannot be redriven")
    PAYLOAD_LOST = ("payload-lost", 410, "A stored payload no longer exists")
    STREAM_GONE = ("stream-gone", 410, "A part of the stream no longer exists")
    REQUEST_TIMEOUT = ("request-timeout", 408, "The request did not arrive in time")
    TOO_LARGE = ("too-large", 413, "The request is too large")
    UNSUPPORTED_MEDIA_TYPE = ("unsupported-media-type", 415, "The Content-Type is not supported")
    MISDIRECTED = ("misdirected-request", 421, "The gateway does not serve this host name")
    INVALID = ("invalid-request", 422, "The request is invalid")
    UPGRADE_REQUIRED = ("upgrade-required", 426, "The protocol version is not supported")
    KEY_REUSED = ("idempotency-key-reused", 422, "The idempotency key belongs to another request")
    ENDPOINT_TESTS_OPEN = ("endpoint-tests-open", 429, "Tests of webhook endpoints are under way")
    QUOTA_EXCEEDED = ("quota-exceeded", 429, "A quota is used up")
    RUN_LIMIT_REACHED = ("run-limit-reached", 409, "The run has used what it may")
    AGENT_BUSY = ("agent-busy", 429, "The agent is at its limit of calls")
    HEAD_TOO_LARGE = ("head-too-large", 431, "The request's headers are too large")
    INTERNAL = ("internal", 500, "Sevenfold failed")
    AGENT_FAILED = ("agent-failed", 502, "The agent failed")
    AGENT_REJECTED = ("agent-rejected", 502, "The agent rejected the request")
    AGENT_UNAVAILABLE = ("agent-unavailable", 502, "The agent did not answer")
    AGENT_RATE_LIMITED = ("agent-rate-limited", 503, "The agent limits the rate of calls")
    CIRCUIT_OPEN = ("circuit-open", 503, "The agent's circuit breaker is open")
    DOCUMENT_UNAVAILABLE = ("document-unavailable", 502, "The document could not be fetched")
    ACCESS_UNAVAILABLE = ("access-unavailable", 503, "The credential cannot be verified now")
    TEMPORAL_UNAVAILABLE = ("temporal-unavailable", 503, "Temporal cannot be reached")
    OVERLOADED = ("overloaded", 503, "The gateway has too much to start")
    TOO_MANY_CONNECTIONS = ("too-many-connections", 503, "There are too many connections")
    STORAGE_FULL = ("storage-full", 507, "The disk is full")
    CODEC_KEY_MISSING = ("codec-key-missing", 503, "The gateway lacks the key of what is stored")
    STORAGE_UNAVAILABLE = ("storage-unavailable", 503, "A store is unavailable")
    LOOP_DETECTED = ("loop-detected", 508, "Agents call each other without end")
    DEADLINE_EXCEEDED = ("deadline-exceeded", 504, "The run's deadline has passed")

    def __init__(self, slug: str, status: int, title: str) -> None:
        self.slug = slug
        self.type = f"{PROBLEM_PREFIX}/{slug}"
        self.status = status
        self.title = title


_TYPE_OF_CODE = {
    ErrorCode.AGENT_FAILED: ProblemType.AGENT_FAILED,
    ErrorCode.AGENT_BUG: ProblemType.AGENT_FAILED,
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
    ErrorCode.QUOTA_EXCEEDED: ProblemType.QUOTA_EXCEEDED,
    ErrorCode.RUN_LIMIT_REACHED: ProblemType.RUN_LIMIT_REACHED,
    ErrorCode.INTERNAL: ProblemType.INTERNAL,
}


class FieldError(Payload):
    """One error in a request. `pointer` is an RFC 6901 pointer into the body, or `header:`, `query:` or `path:` and a
    name.
    """

    pointer: str
    detail: str


class Problem(Payload):
    """The body of every error."""

    type: str = Field(
        description="One of a fixed list, each the path of a page that explains it.",
        json_schema_extra={"enum": [*sorted(kind.type for kind in ProblemType)]},
    )
    title: str
    status: int
    detail: str
    request_id: str
    errors: list[FieldError] | None = Field(default=None, description="For invalid requests.")
    code: ErrorCode | None = Field(default=None, description="For runs that failed.")
    attempts: int | None = Field(default=None, description="For runs that failed.")
    usage: UsageTotals | None = Field(default=None, description="For runs that failed: what they had reported.")
    traceback: list[str] | None = Field(default=None, description="Of a bug in an agent, in development.")
    run_id: str | None = Field(default=None, description="The id of the run, if there is one.")
    retry_after: int | None = Field(
        default=None, description="In a stream, whose headers are sent: as the header Retry-After, in seconds."
    )
    violated_policies: list[str] | None = Field(
        default=None,
        alias="violated-policies",
        description="For a quota: whose it is and what it limits, such as `tenant-open-runs`.",
    )


class ProblemError(Exception):
    """Raised anywhere in a handler; `sevenfold.api.http.problem_handlers` renders it."""

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

    @property
    def retry_after_seconds(self) -> int | None:
        """`retry_after` as clients get it: whole seconds, at least one."""
        return None if self.retry_after is None else max(1, math.ceil(self.retry_after))

    def body(self, request_id: str) -> Problem:
        """Returns the response body."""
        return Problem(
            type=self.problem_type.type,
            title=self.problem_type.title,
            status=self.problem_type.status,
            detail=self.detail,
            request_id=request_id,
            errors=self.errors or None,
            **self.members,
        )


def invalid_field(pointer: str, detail: str) -> ProblemError:
    """Returns the 422 of one invalid field, header or parameter."""
    return ProblemError(
        ProblemType.INVALID, f"{pointer}: {detail}", errors=[FieldError(pointer=pointer, detail=detail)]
    )


def not_found(what: str) -> ProblemError:
    """Returns a 404. `what` names the resource, such as `This run`."""
    return ProblemError(ProblemType.NOT_FOUND, f"{what} does not exist, or is older than the retention.")


def add_quota(problem: ProblemError, quota: ExceededQuota) -> None:
    """Adds the quota that is used up, to the body and to the headers."""
    problem.members["violated_policies"] = [quota.policy]
    if problem.retry_after_seconds is not None:
        problem.headers |= rate_limit_headers(quota, problem.retry_after_seconds)


def run_failure(run_id: str, error: RunError) -> ProblemError:
    """Returns the problem of a failed run, for a client that waits for its result."""
    if error.pointer is not None:
        problem = invalid_field(error.pointer, error.detail)
    else:
        problem = ProblemError(_TYPE_OF_CODE[error.code], error.detail, retry_after=error.retry_after)
    problem.members |= {"run_id": run_id, "code": error.code, "attempts": error.attempts}
    if error.usage is not None:
        problem.members["usage"] = error.usage
    if error.quota is not None:
        add_quota(problem, error.quota)
    if error.traceback is not None:
        problem.members["traceback"] = error.traceback.splitlines()
    return problem
