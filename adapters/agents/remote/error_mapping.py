"""What an HTTP exchange with an agent came to: one function, from the outcome to the verdict."""

import ssl
from datetime import datetime

import httpx
from pydantic import JsonValue

from sevenfold.adapters.outbound.retry_after import retry_after_seconds
from sevenfold.contracts.verdicts import AgentError, AgentRateLimited, AgentRejected, AgentUnavailable


class BadAnswerError(Exception):
    """The answer came, and cannot be read: `reason` is wrong with it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class LargeAnswerError(Exception):
    """The answer goes on and on. `limit` in bytes."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"more than {limit} bytes")
        self.limit = limit


# Statuses below 500 that say nothing about the request: it may be sent again as it is.
_TRANSIENT_STATUSES = frozenset({408, 425})
_TOO_MANY_REQUESTS = 429
_KEY_REFUSED = frozenset({401, 403})
# Of the statuses from 500 on, those that will be the same next time.
_PERMANENT_STATUSES = frozenset({501, 505})


def to_agent_error(
    outcome: httpx.Response | httpx.HTTPError | httpx.InvalidURL | BadAnswerError | LargeAnswerError,
    explanation: str = "",
    *,
    now: datetime | None = None,
) -> AgentError:
    """The verdict on an answer that is not a success, on an exception, or on an answer that cannot be read.

    `said` is the upstream's own explanation, for refusals; it must hold no secret. The details name no host: clients
    read them.
    """
    match outcome:
        case httpx.Response():
            pause = retry_after_seconds(outcome.headers.get("Retry-After"), now=now)
            return error_for_status(outcome.status_code, explanation, pause)
        case BadAnswerError():
            return AgentUnavailable(f"The agent's answer cannot be read: {outcome.reason}.")
        case LargeAnswerError():
            return AgentRejected(f"The agent's answer is larger than {outcome.limit} bytes.")
        case httpx.InvalidURL() | httpx.UnsupportedProtocol() | httpx.TooManyRedirects():
            return AgentRejected("The agent's address in sevenfold.toml does not work.")
        case httpx.ConnectTimeout() | httpx.PoolTimeout():
            return AgentUnavailable("The agent could not be connected to in time.")
        case httpx.ConnectError():
            return AgentUnavailable(_describe_connect_error(outcome))
        case httpx.TimeoutException():
            return AgentUnavailable("The agent was silent for too long.")
        case httpx.DecodingError():
            return AgentUnavailable("The agent's answer cannot be read: its compression is damaged.")
        case httpx.LocalProtocolError():
            return AgentRejected("The request cannot be put into HTTP.")
    return AgentUnavailable("The agent broke the connection off.")


def error_for_status(status: int, explanation: str = "", retry_after: float | None = None) -> AgentError:
    """The verdict on a status, of an answer or of an error within a stream."""
    suffix = f": {explanation}" if explanation else "."
    if status == _TOO_MANY_REQUESTS:
        return AgentRateLimited("The agent's server wants fewer requests.", retry_after=retry_after)
    if status in _TRANSIENT_STATUSES or (status >= 500 and status not in _PERMANENT_STATUSES):
        return AgentUnavailable(f"The agent's server answered {status}.", retry_after=retry_after)
    if status in _KEY_REFUSED:
        # its explanation may repeat a part of the key
        return AgentRejected(f"The agent's server answered {status}: it does not accept Sevenfold's key for it.")
    if 300 <= status < 400:
        return AgentRejected(f"The agent's server answered {status}: its address has changed. Redirects end here.")
    return AgentRejected(f"The agent's server answered {status}{suffix}")


def _describe_connect_error(error: httpx.ConnectError) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return "The agent's certificate is not trusted."
        cause = cause.__cause__ or cause.__context__
    return "The agent could not be connected to."


def extract_explanation(body: JsonValue) -> str:
    """What a refusal says of itself: problem+json, OpenAI's and FastAPI's errors, and what is usual else."""
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
