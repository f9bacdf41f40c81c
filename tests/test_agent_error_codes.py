"""From the outcome of an HTTP exchange to the error code: the whole table."""

from datetime import UTC, datetime

import httpx
import pytest

from sevenfold.adapters.agents.remote.error_mapping import BadAnswerError, LargeAnswerError, to_agent_error
from sevenfold.adapters.outbound.retry_after import retry_after_seconds
from sevenfold.contracts.agents.errors import ErrorCode

NOW = datetime(2026, 11, 27, 12, 0, 0, tzinfo=UTC)

UNAVAILABLE, LIMITED, REJECTED = ErrorCode.AGENT_UNAVAILABLE, ErrorCode.AGENT_RATE_LIMITED, ErrorCode.AGENT_REJECTED


@pytest.mark.parametrize(
    ("status", "code"),
    [
        *((status, UNAVAILABLE) for status in (408, 425, 500, 502, 503, 504, 507, 520, 524, 529, 599)),
        (429, LIMITED),
        *((status, REJECTED) for status in (400, 401, 402, 403, 404, 405, 406, 409, 410, 411, 413, 415, 422, 451)),
        *((status, REJECTED) for status in (301, 302, 303, 307, 308)),
        *((status, REJECTED) for status in (501, 505)),
    ],
)
def test_http_status_maps_to_error_code(status: int, code: ErrorCode) -> None:
    error = to_agent_error(httpx.Response(status))
    assert error.code is code
    assert error.retry_after is None
    assert error.detail.endswith(".")


@pytest.mark.parametrize("status", [429, 503, 500])
@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        ("0", 0.0),
        ("999999999", 86_400.0),
        ("Fri, 27 Nov 2026 12:00:30 GMT", 30.0),
        ("Fri, 27 Nov 2026 11:00:00 GMT", 0.0),
        ("Friday, 27-Nov-26 12:00:05 GMT", 5.0),
        ("Fri, 27 Nov 2026 12:00:30", None),
        ("soon", None),
        ("-5", None),
        ("", None),
        ("1e3", None),
        ("\u0667", None),
    ],
)
def test_retry_after_is_read_as_seconds_and_as_date(status: int, header: str, seconds: float | None) -> None:
    headers = {"Retry-After": header.encode()}
    assert to_agent_error(httpx.Response(status, headers=headers), now=NOW).retry_after == seconds  # type: ignore[arg-type]
    assert retry_after_seconds(header, now=NOW) == seconds


@pytest.mark.parametrize(
    ("outcome", "code", "detail"),
    [
        (httpx.ConnectError("x"), UNAVAILABLE, "connection to the agent failed"),
        (httpx.ConnectTimeout("x"), UNAVAILABLE, "timed out"),
        (httpx.PoolTimeout("x"), UNAVAILABLE, "timed out"),
        (httpx.ReadTimeout("x"), UNAVAILABLE, "sent nothing"),
        (httpx.WriteTimeout("x"), UNAVAILABLE, "sent nothing"),
        (httpx.ReadError("x"), UNAVAILABLE, "broke"),
        (httpx.WriteError("x"), UNAVAILABLE, "broke"),
        (httpx.CloseError("x"), UNAVAILABLE, "broke"),
        (httpx.RemoteProtocolError("x"), UNAVAILABLE, "broke"),
        (httpx.ProxyError("x"), UNAVAILABLE, "broke"),
        (httpx.DecodingError("x"), UNAVAILABLE, "compression"),
        (BadAnswerError("it is not JSON"), UNAVAILABLE, "it is not JSON"),
        (LargeAnswerError(5), REJECTED, "5 bytes"),
        (httpx.UnsupportedProtocol("x"), REJECTED, "sevenfold.toml"),
        (httpx.InvalidURL("x"), REJECTED, "sevenfold.toml"),
        (httpx.LocalProtocolError("x"), REJECTED, "HTTP"),
    ],
)
def test_httpx_exception_maps_to_error_code(outcome: httpx.HTTPError, code: ErrorCode, detail: str) -> None:
    error = to_agent_error(outcome)
    assert error.code is code
    assert detail in error.detail


def test_every_httpx_exception_maps_to_an_error_code() -> None:
    todo, found = [httpx.HTTPError], set()
    while todo:
        kind = todo.pop()
        found.add(kind)
        # Clients of models derive their own from these.
        todo += [one for one in kind.__subclasses__() if one.__module__.startswith("httpx")]
    assert len(found) > 15
    for kind in found - {httpx.HTTPStatusError}:  # raised by raise_for_status alone
        assert to_agent_error(kind("x")).code in (UNAVAILABLE, REJECTED)


def test_rejection_detail_redacts_keys() -> None:
    assert to_agent_error(httpx.Response(422), "size is missing").detail.endswith("answered 422: size is missing")
    for status in (401, 403):
        assert "sk-12" not in to_agent_error(httpx.Response(status), "Incorrect API key: sk-12").detail
