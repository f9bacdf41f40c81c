"""Maps the outcome of an HTTP exchange with an agent to an AgentError, in one function."""

import ssl
from datetime import datetime

import httpx
from pydantic import JsonValue

from sevenfold.adapters.outbound.retry_after import retry_after_seconds
from sevenfold.contracts.agents.errors import AgentError, AgentRateLimited, AgentRejected, AgentUnavailable


class BadAnswerError(Exception):
    """The answer cannot be parsed; `reason` is a clause with the cause."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class LargeAnswerError(Exception):
    """The answer exceeds `limit` bytes."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"more than {limit} bytes")
        self.limit = limit


_ANSWERED = "The agent's server answered"

# Statuses below 500 that are transient.
_TRANSIENT_STATUSES = frozenset({408, 425})
_TOO_MANY_REQUESTS = 429
_KEY_REFUSED = frozenset({401, 403})
# Statuses from 500 on that are permanent.
_PERMANENT_STATUSES = frozenset({501, 505, 508})
# Statuses of failed runs that may succeed later: busy, or out of service for a while.
_LATER = frozenset({429, 503})


def to_agent_error(
    outcome: httpx.Response | httpx.HTTPError | httpx.InvalidURL | BadAnswerError | LargeAnswerError,
    explanation: str = "",
    *,
    now: datetime | None = None,
) -> AgentError:
    """Returns the AgentError of an unsuccessful response, an exception, or an answer that cannot be parsed.

    `explanation` is the server's own explanation of a rejection; it must contain no secret. The details name no host,
    because clients read them.
    """
    match outcome:
        case httpx.Response():
            return _error_for_response(outcome, explanation, now)
        case BadAnswerError():
            return AgentUnavailable(f"The agent's answer cannot be read: {outcome.reason}.")
        case LargeAnswerError():
            return AgentRejected(f"The agent's answer is larger than {outcome.limit} bytes.")
        case httpx.InvalidURL() | httpx.UnsupportedProtocol() | httpx.TooManyRedirects():
            return AgentRejected("The agent's URL in sevenfold.toml is invalid.")
        case httpx.ConnectTimeout() | httpx.PoolTimeout():
            return AgentUnavailable("Connecting to the agent timed out.")
        case httpx.ConnectError():
            return AgentUnavailable(_describe_connect_error(outcome))
        case httpx.TimeoutException():
            return AgentUnavailable("The agent sent nothing for longer than idle_timeout_seconds.")
        case httpx.DecodingError():
            return AgentUnavailable("The agent's answer cannot be read: its compression is damaged.")
        case httpx.LocalProtocolError():
            return AgentRejected("The request cannot be encoded as HTTP.")
    return AgentUnavailable("The connection to the agent broke off.")


def _error_for_response(response: httpx.Response, explanation: str, now: datetime | None) -> AgentError:
    status = response.status_code
    if status >= 500 and response.headers.get("x-should-retry") == "false":
        return _final_failure(status, explanation)
    return error_for_status(status, explanation, retry_after_seconds(response.headers.get("Retry-After"), now=now))


def error_for_status(status: int, explanation: str = "", retry_after: float | None = None) -> AgentError:
    """Returns the AgentError of a status, of a response or of an error within a stream."""
    suffix = f": {explanation}" if explanation else "."
    if status == _TOO_MANY_REQUESTS:
        return AgentRateLimited("The agent's server answered 429: too many requests.", retry_after=retry_after)
    if status in _TRANSIENT_STATUSES or (status >= 500 and status not in _PERMANENT_STATUSES):
        return AgentUnavailable(f"The agent's server answered {status}.", retry_after=retry_after)
    if status in _KEY_REFUSED:
        # Its explanation may repeat a part of the key.
        return AgentRejected(f"The agent's server answered {status}: it rejects the key that api_key_env names.")
    if 300 <= status < 400:
        return AgentRejected(
            f"The agent's server answered {status}: its URL has changed, and redirects are not followed."
        )
    return AgentRejected(f"The agent's server answered {status}{suffix}")


def error_of_gateway(frame: JsonValue) -> AgentError | None:
    """Returns the error of a run behind another Sevenfold, which has made all attempts that it makes."""
    match frame:
        case {"sevenfold": {"error": {"status": int(status), "detail": str(detail)}}}:
            return error_for_status(status) if status in _LATER else _final_failure(status, detail)
    return None


def _final_failure(status: int, explanation: str) -> AgentError:
    if explanation.startswith(_ANSWERED):  # the error of a further gateway, passed on unchanged
        return AgentRejected(explanation)
    return AgentRejected(f"{_ANSWERED} {status}{f': {explanation}' if explanation else '.'}")


def _describe_connect_error(error: httpx.ConnectError) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return "The agent's certificate is not trusted."
        cause = cause.__cause__ or cause.__context__
    return "The connection to the agent failed."


def extract_explanation(body: JsonValue) -> str:
    """Extracts the explanation from problem+json, OpenAI's and FastAPI's errors, and other common forms."""
    match body:
        case {"detail": str() as text} | {"error": str() as text} | {"message": str() as text}:
            return text
        case {"error": {"message": str() as text}} | {"error": {"detail": str() as text}}:
            return text
        case {"detail": [{"msg": str() as text, **where}, *_]}:
            location = where.get("loc")
            parts = ".".join(map(str, location)) if isinstance(location, list) else ""
            return f"{parts} {text}".strip()
    return ""
