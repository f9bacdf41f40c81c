"""One POST to a receiver, limited in time and in how much of its response is read."""

import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime

import httpx

from sevenfold.adapters.outbound.addresses import UnsafeUrlError
from sevenfold.adapters.outbound.bounded import read_prefix
from sevenfold.adapters.outbound.connections import UnresolvableError
from sevenfold.adapters.outbound.retry_after import retry_after_seconds
from sevenfold.contracts.webhooks.delivery import AttemptOutcome, AttemptResult, DeliveryAttempt

# Time-out of a whole exchange, in seconds.
TIMEOUT_SECONDS = 15.0

_ANSWER_BYTES = 1_000
_RETRY_AFTER_STATUSES = (429, 503)
_GONE = 410


class WebhookPoster:
    """Posts by a guarded client (sevenfold.adapters.outbound), whose timeout should be TIMEOUT_SECONDS."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> AttemptOutcome:
        """Posts and returns the outcome. Raises nothing, whatever the receiver does."""
        at, started_at = datetime.now(UTC), time.monotonic()
        status: int | None = None
        answer, reason, pause = "", "", 0.0
        result = AttemptResult.FAILED
        try:
            async with self._client.stream(
                "POST", url, content=body, headers={"Content-Type": "application/json", **headers}
            ) as response:
                status = response.status_code
                result, reason = _classify(response)
                pause = _retry_after(response)
                # The status counts already, even if the body fails.
                with suppress(httpx.TransportError):
                    answer = (await read_prefix(response, _ANSWER_BYTES)).decode(errors="replace")
        except UnsafeUrlError as error:
            result, reason = AttemptResult.FINAL, str(error)
        except httpx.TransportError as error:
            if status is None:
                reason = _describe_error(error)
        attempt = DeliveryAttempt(
            at=at,
            status=status,
            error=reason if status is None else None,
            milliseconds=round((time.monotonic() - started_at) * 1000),
            answer=answer,
        )
        return AttemptOutcome(result=result, attempt=attempt, reason=reason, retry_after=pause)


def _classify(response: httpx.Response) -> tuple[AttemptResult, str]:
    status = response.status_code
    if response.is_success:
        return AttemptResult.DELIVERED, ""
    if status == _GONE:
        return AttemptResult.FINAL, "The receiver answered 410: the endpoint is gone."
    if response.is_redirect:
        return AttemptResult.FAILED, f"The receiver answered {status}; redirects are not followed."
    return AttemptResult.FAILED, f"The receiver answered {status}."


def _retry_after(response: httpx.Response) -> float:
    """Returns the receiver's `Retry-After` in seconds, at most a day; 0 without one."""
    if response.status_code not in _RETRY_AFTER_STATUSES:
        return 0.0
    return retry_after_seconds(response.headers.get("Retry-After")) or 0.0


def _describe_error(error: httpx.TransportError) -> str:
    """Describes the error without httpx's own text, which may contain the URL."""
    if isinstance(error, UnresolvableError):
        return "The receiver's host name could not be resolved."
    if isinstance(error, httpx.TimeoutException):
        return f"The receiver did not answer within {TIMEOUT_SECONDS:g} s."
    if isinstance(error, httpx.ConnectError):
        return "No connection to the receiver could be made."
    return "The connection to the receiver broke off."
