"""The kind `http` against real servers that do what servers do."""

import asyncio
import gzip
import json
import resource
import socket
import zlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from sevenfold.adapters.agents.remote.http_agent import HttpAgent
from sevenfold.adapters.agents.remote.upstream import Upstream
from sevenfold.contracts.agents.errors import AgentError, AgentRateLimited, AgentRejected, AgentUnavailable
from sevenfold.contracts.agents.interface import AgentContext, AgentEvent, AgentRequest, Delta, Progress, Reply, Usage
from tests.support.receivers import Answer, Receiver, drips, floods, hangs, running_receiver, simple
from tests.support.upstreams import JSON, NDJSON, SSE, events, reply_script, streams

REQUEST = AgentRequest(run_id="qry_a", attempt=2, task="query", query="hi", context={"customerId": "1"})


@pytest.fixture
async def server() -> AsyncIterator[Receiver]:
    async with running_receiver() as receiver:
        yield receiver


def context(seconds: float = 30.0) -> AgentContext:
    deadline = datetime.now(UTC) + timedelta(seconds=seconds)
    return AgentContext(deadline, request_id="req_1", traceparent=f"00-{'a' * 32}-{'b' * 16}-01")


async def ask(
    server: Receiver, answer: Answer | None = None, *, silence: float = 5.0, key: str | None = None
) -> list[AgentEvent]:
    if answer is not None:
        server.answers.append(answer)
    agent = HttpAgent(Upstream(server.url("/run"), api_key=key, idle_timeout_seconds=silence))
    try:
        return [event async for event in agent.run(REQUEST, context())]
    finally:
        await agent.aclose()


async def test_request_holds_the_call_and_its_headers(server: Receiver) -> None:
    await ask(server, reply_script({"response": "hello"}), key="sk-secret")
    (post,) = server.posts
    assert post.json == {
        "runId": "qry_a",
        "attempt": 2,
        "turn": 1,
        "task": "query",
        "query": "hi",
        "context": {"customerId": "1"},
        "data": {},
        "params": {},
        "metadata": {},
    }
    assert post.headers["content-type"] == JSON
    assert post.headers["x-request-id"] == "req_1"
    assert post.headers["traceparent"] == f"00-{'a' * 32}-{'b' * 16}-01"
    assert 29 < float(post.headers["x-request-timeout"]) <= 30
    assert post.headers["authorization"] == "Bearer sk-secret"


async def test_cookie_of_one_call_is_not_sent_with_another(server: Receiver) -> None:
    """The calls of all tenants share a client: a session that the agent opens for one must not serve another."""
    agent = HttpAgent(Upstream(server.url("/run"), api_key=None, idle_timeout_seconds=5))
    for _ in range(2):
        server.answers.append(reply_script({"response": "hello"}, 200, ("Set-Cookie", "session=acme; Path=/")))
        assert [event async for event in agent.run(REQUEST, context())] == [Reply(response="hello")]
    await agent.aclose()
    assert [post.headers.get("cookie") for post in server.posts[-2:]] == [None, None]


@pytest.mark.parametrize(
    ("answer_body", "reply"),
    [
        ({"response": "hello", "confidence": 0.5}, Reply(response="hello", confidence=0.5)),
        ("hello", Reply(response="hello")),
        ({"found": 3}, Reply(data={"found": 3})),
        (
            {"response": "x", "data": {"a": 1}, "usage": {"inputTokens": 3, "outputTokens": 4}},
            Reply(response="x", data={"a": 1}, usage=Usage(input_tokens=3, output_tokens=4)),
        ),
    ],
)
async def test_json_answer_becomes_a_reply(server: Receiver, answer_body: object, reply: Reply) -> None:
    assert await ask(server, reply_script(answer_body)) == [reply]


STREAM = [
    {"text": "Hel"},
    {"percent": 40, "note": "half"},
    {"chunk": "lo"},
    {"weather": "a kind of frame that is not known yet"},
    {"response": "", "confidence": 0.9},
]
ANSWERED_REPLY = [Delta(text="Hel"), Progress(percent=40, note="half"), Delta(text="lo"), Reply(confidence=0.9)]


async def test_server_sent_events_are_read(server: Receiver) -> None:
    assert await ask(server, streams(": hello\n\n", "retry: 5\n\n", *events(*STREAM))) == ANSWERED_REPLY


async def test_json_lines_are_read(server: Receiver) -> None:
    lines = [f"{json.dumps(one)}\n" for one in STREAM]
    assert await ask(server, streams(*lines, form=NDJSON)) == ANSWERED_REPLY
    assert await ask(server, streams("".join(lines).rstrip(), form=f"{NDJSON}; charset=utf-8")) == ANSWERED_REPLY


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("size", [1, 2, 3, 7])
async def test_events_split_anywhere_are_joined(server: Receiver, end: str, size: int) -> None:
    whole = "".join(events({"text": "ü\u2028€😀"}, *STREAM)).replace("\n", end).encode()
    pieces = [whole[start : start + size].decode("latin-1") for start in range(0, len(whole), size)]

    async def script(send):  # type: ignore[no-untyped-def]
        head = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", SSE.encode())]}
        await send(head)
        for piece in pieces:
            await send({"type": "http.response.body", "body": piece.encode("latin-1"), "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    assert await ask(server, script) == [Delta(text="ü\u2028€😀"), *ANSWERED_REPLY]


async def test_event_with_several_data_lines_is_joined(server: Receiver) -> None:
    assert await ask(server, streams('event: x\nid: 1\ndata: {"text":\ndata:"a"}\n\n', *events({"done": True}))) == [
        Delta(text="a"),
        Reply(),
    ]


async def test_bytes_after_the_reply_are_not_awaited(server: Receiver) -> None:
    async with asyncio.timeout(15):
        assert await ask(server, streams(*events({"done": True}), hangs=20)) == [Reply()]


FAILURES: list[tuple[str, Answer, type[AgentError], str]] = [
    ("500", 500, AgentUnavailable, "500"),
    ("503 with a pause", reply_script({}, 503, ("Retry-After", "3")), AgentUnavailable, "503"),
    ("429", 429, AgentRateLimited, "too many requests"),
    ("429 with a pause", reply_script({}, 429, ("Retry-After", "3")), AgentRateLimited, "too many requests"),
    (
        "422",
        reply_script({"detail": [{"loc": ["body", "size"], "msg": "Field required"}]}, 422),
        AgentRejected,
        "body.size",
    ),
    ("problem", reply_script({"title": "x", "detail": "No such customer."}, 404), AgentRejected, "No such customer."),
    ("redirect", simple(307, ("Location", "http://127.0.0.1:1/")), AgentRejected, "307"),
    ("garbage", simple(200, ("Content-Type", JSON), body=b"<html>oops"), AgentUnavailable, "not JSON"),
    ("empty", simple(200, body=b""), AgentUnavailable, "not JSON"),
    ("a number", reply_script(17), AgentRejected, "int"),
    ("NaN", simple(200, body=b'{"confidence": NaN}'), AgentUnavailable, "not JSON"),
    ("does not fit", reply_script({"response": "x", "confidence": 7}), AgentRejected, "confidence"),
    ("a flood", floods, AgentRejected, "larger"),
    ("reset", streams(*events({"text": "a"}), resets=True), AgentUnavailable, "broke"),
    ("a garbled frame", streams(*events("{oops")), AgentUnavailable, "not JSON"),
    ("a frame of a list", streams(*events([1])), AgentUnavailable, "object"),
    ("a bad percent", streams(*events({"percent": 120})), AgentUnavailable, "percent"),
    ("silent at once", hangs, AgentUnavailable, "sent nothing"),
    ("silent in the middle", streams(*events({"text": "a"}), hangs=20), AgentUnavailable, "sent nothing"),
    ("error, retryable", streams(*events({"error": {"status": 503}})), AgentUnavailable, "503"),
    (
        "error, rate limited",
        streams(*events({"error": {"status": 429, "retryAfter": 3}})),
        AgentRateLimited,
        "too many requests",
    ),
    ("error, permanent", streams(*events({"error": {"status": 422, "detail": "bad"}})), AgentRejected, "bad"),
    ("error as text", streams(*events({"error": "boom"})), AgentUnavailable, "500"),
]


@pytest.mark.parametrize(
    ("answer", "error", "detail"), [row[1:] for row in FAILURES], ids=[row[0] for row in FAILURES]
)
async def test_failed_answer_raises_its_agent_error(
    server: Receiver, answer: Answer, error: type[AgentError], detail: str
) -> None:
    with pytest.raises(error) as raised:
        await ask(server, answer, silence=0.5 if "nothing" in detail else 5.0)
    assert type(raised.value) is error
    assert detail in raised.value.detail


@pytest.mark.parametrize("rest", ["", 'data: {"done": true}'], ids=["no reply", "cut in an event"])
async def test_stream_that_ends_without_a_reply_is_an_error(server: Receiver, rest: str) -> None:
    """Whoever listens raises then; see tests/test_query.py for `silent`."""
    assert await ask(server, streams(*events({"text": "a"}), rest)) == [Delta(text="a")]


async def test_retry_after_of_the_agent_is_kept(server: Receiver) -> None:
    with pytest.raises(AgentRateLimited) as raised:
        await ask(server, reply_script({}, 429, ("Retry-After", "3")))
    assert raised.value.retry_after == 3


async def test_dripping_stream_is_read_until_cancelled(server: Receiver) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(4.5):
            await ask(server, drips, silence=3)


async def test_refused_connection_is_agent_unavailable() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))  # bound, and never listening
        with pytest.raises(AgentUnavailable, match="connection"):
            await ask(Receiver(sock.getsockname()[1]))


@pytest.mark.parametrize(
    "answer",
    [
        reply_script({"detail": "no: sk-secret is bad"}, 400),
        streams(*events({"error": {"status": 400, "detail": "no: sk-secret is bad"}})),
        streams(*events({"error": {"status": 400, "detail": f"{'x' * 360} sk-secret is bad"}})),
    ],
)
async def test_api_key_appears_in_no_error(server: Receiver, answer: Answer) -> None:
    with pytest.raises(AgentRejected) as raised:
        await ask(server, answer, key="sk-secret")
    assert "sk-s" not in str(raised.value)
    assert raised.value.__cause__ is None


@pytest.mark.parametrize("answer", [reply_script({"response": "a"}), streams(*events({"text": "a"}, {"done": True}))])
async def test_connection_is_reused(server: Receiver, answer: Answer) -> None:
    server.by_path["/run"] = answer
    upstream = Upstream(server.url("/run"), api_key=None, idle_timeout_seconds=5)
    agent = HttpAgent(upstream)
    for _ in range(5):
        async for event in agent.run(REQUEST, context()):
            if isinstance(event, Reply):
                break  # as whoever calls it does
        await asyncio.sleep(0)
    assert len(server.ports) == 1
    await agent.aclose()


async def test_call_never_uses_a_connection_that_the_server_is_closing(server: Receiver) -> None:
    """Servers drop a connection that was not used for five seconds: by then it is not used any more."""
    server.by_path["/run"] = reply_script({"response": "a"})
    agent = HttpAgent(Upstream(server.url("/run"), api_key=None, idle_timeout_seconds=5))
    for pause in (4.0, 0.0):
        assert [event async for event in agent.run(REQUEST, context())]
        await asyncio.sleep(pause)
    assert len(server.ports) == 2
    await agent.aclose()


def gzipped(body: bytes, kind: str = JSON):
    return simple(200, ("Content-Type", kind), ("Content-Encoding", "gzip"), body=body)


async def test_gzip_answer_is_decompressed(server):
    assert await ask(server, gzipped(gzip.compress(b'{"response": "ok"}'))) == [Reply(response="ok")]
    frames = "".join(events({"text": "a"}, {"done": True})).encode()
    assert await ask(server, gzipped(gzip.compress(frames), SSE)) == [Delta(text="a"), Reply()]
    assert server.posts[-1].headers["accept-encoding"] == "gzip"


@pytest.mark.parametrize("kind", [JSON, SSE, NDJSON])
async def test_gzip_bomb_is_refused_before_it_fills_memory(server, kind):
    packer = zlib.compressobj(wbits=31)
    bomb = b"".join(packer.compress(bytes(1_000_000)) for _ in range(1_000)) + packer.flush()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(AgentRejected, match="larger than"):
        await ask(server, gzipped(bomb, kind))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 200_000  # kB, of 1 GB unpacked


@pytest.mark.parametrize("body", [b"no gzip", gzip.compress(b'{"response": "ok"}')[:-9]], ids=["none", "cut short"])
async def test_damaged_gzip_is_a_failed_attempt(server, body):
    with pytest.raises(AgentUnavailable, match="compression"):
        await ask(server, gzipped(body))


async def test_gzip_with_trailing_bytes_is_refused(server):
    body = gzip.compress(b'{"response": "ok"}') + bytes(1_000)
    with pytest.raises(AgentUnavailable, match="compression"):
        await ask(server, gzipped(body))
