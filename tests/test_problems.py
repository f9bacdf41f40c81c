"""Bad input gets a clear problem that names the field: never a 5xx, never a hang."""

import asyncio
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from temporalio.service import RPCError, RPCStatusCode

from sevenfold.api.http.problem_handlers import to_problem
from sevenfold.api.http.problems import ProblemType
from tests.support.stack import Stack

URL = "/api/agent/query"
JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/query"),
        ({"query": ""}, "/query"),
        ({"query": 7}, "/query"),
        ({"query": None}, "/query"),
        ({"query": "x", "context": []}, "/context"),
        ({"query": "x", "context": "y"}, "/context"),
        ({"query": "x", "agent": "nobody"}, "/agent"),
        ({"query": "x", "agent": "a\r\nb"}, "/agent"),
        ({"query": "x", "timeout": 0}, "/timeout"),
        ({"query": "x", "timeout": -1}, "/timeout"),
        ({"query": "x", "timeout": 1e300}, "/timeout"),
        ({"query": "x", "priority": 6}, "/priority"),
        ({"query": "x", "priority": 1.5}, "/priority"),
        ({"query": "x", "metadata": {"a": "b" * 9000}}, "/metadata"),
        ({"query": "x", "qurey": "y"}, "/qurey"),
        ({"query": "x", "a/b~c": 1}, "/a~1b~0c"),
        ([], ""),
        ("text", ""),
        (None, ""),
    ],
)
async def test_invalid_field_of_a_query_is_named(stack: Stack, body: Any, pointer: str) -> None:
    answer = await stack.http.post(URL, content=json.dumps(body), headers=JSON)
    assert answer.status_code == 422, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem = answer.json()
    assert problem["type"] == "/problems/invalid-request"
    assert problem["errors"][0]["pointer"] == pointer
    assert problem["requestId"] == answer.headers["X-Request-Id"]
    assert {"title", "detail", "status"} <= set(problem)


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b'{"query": NaN}',
        b'{"query": "x", "timeout": Infinity}',
        b'{"query": "\\ud800"}',
        b'{"query": "\xff\xfe"}',
        b'{"query": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b"\x00",
        b'{"query": "x"} trailing',
    ],
)
async def test_invalid_json_is_a_problem(stack: Stack, body: bytes) -> None:
    answer = await stack.http.post(URL, content=body, headers=JSON)
    assert answer.status_code == 400
    assert answer.json()["type"] == "/problems/invalid-json"
    assert "column" in answer.json()["detail"] or "UTF-8" in answer.json()["detail"]


async def test_unusual_valid_json_is_answered(stack: Stack) -> None:
    query = "NUL \x00, emoji 🎈, right-to-left \u202e, quote ' \" ; --"
    body = {"query": query, "agent": "echo", "context": {"": {"big": 10**40, "deep": [[[[[]]]]]}}}
    answer = await stack.http.post(URL, json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["response"] == query
    assert answer.json()["data"]["context"] == body["context"]


@pytest.mark.parametrize("number", ["1e999", "-1e999", "1" + "0" * 5_000, "9" * 20, "1e-999"])
@pytest.mark.parametrize("field", ["context", "metadata", "params"])
async def test_out_of_range_number_is_refused(stack: Stack, field: str, number: str) -> None:
    body = f'{{"query": "x", "agent": "echo", "{field}": {{"a": {number}}}}}'
    answer = await stack.http.post(URL, content=body, headers={**JSON, "Idempotency-Key": f"{field}{number[:9]}"})
    assert answer.status_code in (200, 400, 422), answer.text
    json.loads(answer.text, parse_constant=lambda constant: pytest.fail(f"{constant} is not JSON"))


@pytest.mark.parametrize("content_type", ["text/plain", "application/xml", "multipart/form-data", "", "%%%"])
async def test_other_content_type_is_415(stack: Stack, content_type: str) -> None:
    answer = await stack.http.post(URL, content=b'{"query": "x"}', headers={"Content-Type": content_type})
    assert answer.status_code == 415
    assert answer.json()["type"] == "/problems/unsupported-media-type"


async def test_missing_body_is_a_problem(stack: Stack) -> None:
    assert (await stack.http.post(URL)).status_code == 422


async def test_body_over_ten_megabytes_is_413(stack: Stack) -> None:
    answer = await stack.http.post(URL, json={"query": "x" * 10_000_001})
    assert answer.status_code == 413
    assert answer.json()["type"] == "/problems/too-large"

    async def chunks() -> Any:  # without a Content-Length
        for _ in range(11):
            yield b"x" * 1_000_000

    answer = await stack.http.post(URL, content=chunks(), headers=JSON)
    assert answer.status_code == 413


@pytest.mark.parametrize("size", [200_000, 1_500_000, 9_900_000])
async def test_body_below_the_limit_is_processed(stack: Stack, size: int) -> None:
    answer = await stack.http.post(URL, json={"query": "x" * size, "agent": "echo"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["response"] == "x" * size
    history = await stack.temporal.get_workflow_handle(f"default:{answer.json()['queryId']}").fetch_history()
    assert len(history.to_json()) < 2_000_000, "large payloads leave the history"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", URL, 405), ("GET", "/nowhere", 404), ("POST", "/api/agent/querry", 404), ("DELETE", "/", 405)],
)
async def test_unknown_path_or_method_is_a_problem(stack: Stack, method: str, path: str, status: int) -> None:
    answer = await stack.http.request(method, path)
    assert answer.status_code == status
    assert answer.headers["Content-Type"] == "application/problem+json"


async def test_request_id_is_echoed_or_generated(stack: Stack) -> None:
    answer = await stack.http.get("/health/live", headers={"X-Request-Id": "mine-1"})
    assert answer.headers["X-Request-Id"] == "mine-1"
    for bad in ("", "a b", "x" * 200, "<script>"):
        answer = await stack.http.get("/health/live", headers={"X-Request-Id": bad})
        assert answer.headers["X-Request-Id"].startswith("req_")


@pytest.mark.parametrize("prefer", ["wait=", "wait=-1", "wait=abc", "wait=1e9", "wait=²", ";;;", "wait", ",,,"])
async def test_invalid_prefer_header_is_ignored(stack: Stack, prefer: str) -> None:
    answer = await stack.query(agent="echo", headers={"Prefer": prefer.encode("utf-8")})  # type: ignore[dict-item]
    assert answer.status_code == 200
    assert "Preference-Applied" not in answer.headers


async def test_idle_connection_is_kept_open(stack: Stack) -> None:
    """Clients that keep theirs for five seconds, as many do, would meet a server that hangs up after five."""
    reader, writer = await asyncio.open_connection("127.0.0.1", stack.settings.port)
    for pause in (6.0, 0.0):
        writer.write(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
        assert head.startswith(b"HTTP/1.1 200 ")
        (length,) = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        await reader.readexactly(int(length.partition(b":")[2]))
        await asyncio.sleep(pause)
    writer.close()
    await writer.wait_closed()


async def test_client_that_disconnects_mid_body_is_no_error(stack: Stack) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", stack.settings.port)
    writer.write(
        b"POST /api/agent/query HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: 500\r\n\r\n{"
    )
    await writer.drain()
    await asyncio.sleep(0.2)
    writer.close()
    await writer.wait_closed()
    assert reader.at_eof() or not await reader.read()
    assert (await stack.query(agent="echo")).status_code == 200


_SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
_ANYTHING = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=20
)
_FIELDS = st.fixed_dictionaries(
    {"query": st.text(min_size=1) | _ANYTHING},
    optional={
        "context": st.dictionaries(st.text(), _ANYTHING, max_size=4) | _ANYTHING,
        "agent": st.sampled_from(["builtin", "echo", "simulator"]) | _ANYTHING,
        "params": st.dictionaries(
            st.sampled_from(["seconds", "steps", "text", "failures", "failAt", "permanent", "size"]),
            _SCALARS,
            max_size=3,
        )
        | _ANYTHING,
        "timeout": st.floats(0.1, 2) | _ANYTHING,
        "priority": _ANYTHING,
        "metadata": _ANYTHING,
    },
)


_HEADER = st.none() | st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=300)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(body=_FIELDS, key=_HEADER, prefer=_HEADER)
async def test_no_body_or_header_causes_a_server_error(
    stack: Stack, body: dict[str, Any], key: str | None, prefer: str | None
) -> None:
    headers = {
        name: value.strip().encode("utf-8")
        for name, value in {"Idempotency-Key": key, "Prefer": prefer or "wait=3"}.items()
        if value is not None
    }
    content = json.dumps(body).encode("utf-8", errors="surrogatepass")
    answer = await stack.http.post(URL, content=content, headers={**headers, **JSON})  # type: ignore[dict-item]
    assert answer.status_code < 500 or answer.json().get("code"), answer.text
    if answer.status_code >= 400:
        assert answer.json()["requestId"]


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (RPCStatusCode.UNAVAILABLE, 503),
        (RPCStatusCode.DEADLINE_EXCEEDED, 503),
        (RPCStatusCode.INTERNAL, 503),
        (RPCStatusCode.UNKNOWN, 503),
        (RPCStatusCode.INVALID_ARGUMENT, 500),
        (RPCStatusCode.PERMISSION_DENIED, 500),
    ],
)
def test_errors_of_temporal_are_503_unless_the_request_of_the_gateway_is_wrong(
    status: RPCStatusCode, expected: int
) -> None:
    problem = to_problem(RPCError("it failed", status, b""))
    assert problem.problem_type.status == expected
    assert "it failed" not in problem.detail


async def test_every_problem_type_is_the_address_of_its_page(stack: Stack) -> None:
    for kind in ProblemType:
        page = await stack.http.get(kind.type)
        assert page.status_code == 200, kind.type
        assert page.headers["content-type"].startswith("text/html")
        assert kind.title.replace("'", "&#x27;") in page.text
        assert "What to do" in page.text
    listed = (await stack.http.get("/problems")).text
    assert all(f'href="problems/{kind.slug}"' in listed for kind in ProblemType)
    for odd in ("nothing", "..%2Finvalid-json", "<script>", "a" * 5_000):
        missing = await stack.http.get(f"/problems/{odd}")
        assert missing.status_code in (404, 431)
        assert missing.headers["content-type"] == "application/problem+json"
