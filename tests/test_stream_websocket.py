"""Pattern 6 over a WebSocket, with the `websockets` package as the client."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.support.agents import CLEANED_UP
from tests.support.stack import Stack, running_stack
from tests.support.streams import started

BODY = [f"word{number} " for number in range(1, 31)]


@asynccontextmanager
async def open_socket(stack: Stack, first: object = None, query: str = "") -> AsyncIterator[ClientConnection]:
    url = f"ws://127.0.0.1:{stack.settings.port}/api/agent/stream/ws{query}"
    async with connect(url, proxy=None) as socket:
        if first is not None:
            await socket.send(first if isinstance(first, str | bytes) else json.dumps(first))
        yield socket


async def receive_all(socket: ClientConnection, most: int | None = None) -> tuple[list[dict[str, Any]], int | None]:
    """The messages up to the close and its code, or the first few of them."""
    messages: list[dict[str, Any]] = []
    with suppress(ConnectionClosed):
        async with asyncio.timeout(20):
            while most is None or len(messages) < most:
                messages.append(json.loads(await socket.recv()))
    return messages, socket.close_code


def slow_body(**params: object) -> dict[str, object]:
    return {"query": "hi", "agent": "teller", "params": {"say": BODY, **params}}


async def test_first_websocket_message_starts_a_stream(stack: Stack) -> None:
    async with open_socket(stack, slow_body()) as socket:
        (named, *lines), code = await receive_all(socket)
    assert named == {"streamId": named["streamId"], "location": f"/api/agent/stream/{named['streamId']}"}
    assert [line["chunk"] for line in lines] == [*BODY, ""]
    assert [line["index"] for line in lines[:-1]] == list(range(1, 31))
    assert lines[-1]["status"] == "completed"
    assert code == 1000


async def test_websocket_stream_resumes_over_another_connection(stack: Stack) -> None:
    async with open_socket(stack, slow_body(pause=0.03)) as socket:
        (named, *lines), _ = await receive_all(socket, 11)
    async with open_socket(stack, {"streamId": named["streamId"], "after": lines[-1]["index"]}) as socket:
        (again, *rest), code = await receive_all(socket)
    assert again == named
    assert [line["chunk"] for line in (*lines, *rest)] == [*BODY, ""]
    assert code == 1000


async def test_websocket_cancel_message_stops_the_run(stack: Stack) -> None:
    async with open_socket(stack, {"query": "hi", "agent": "careful", "params": {"seconds": 60}}) as socket:
        (named, _), _ = await receive_all(socket, 2)
        await socket.send('{"cancel": true}')
        lines, code = await receive_all(socket)
    assert lines[-1] == {"chunk": "", "done": True, "status": "cancelled"}
    assert code == 1000
    assert named["streamId"] in CLEANED_UP


async def test_websocket_disconnect_cancels_only_if_requested(stack: Stack) -> None:
    ids = []
    for query, seconds in (("", 3), ("?onDisconnect=cancel", 60)):
        body = {"query": "hi", "agent": "careful", "params": {"seconds": seconds}}
        async with open_socket(stack, body, query) as socket:
            (named, _), _ = await receive_all(socket, 2)
            ids.append(named["streamId"])
    assert (await stack.run_until(ids[1], "cancelled", "completed"))["status"] == "cancelled"
    assert (await stack.run_until(ids[0], "cancelled", "completed"))["status"] == "completed"


async def test_websocket_idempotency_key_finds_the_same_stream(stack: Stack) -> None:
    first = {**slow_body(), "idempotencyKey": "over-websocket"}
    ids = []
    for _ in range(2):
        async with open_socket(stack, first) as socket:
            (named, *lines), _ = await receive_all(socket)
            assert [line["chunk"] for line in lines] == [*BODY, ""]
            ids.append(named["streamId"])
    assert ids[0] == ids[1]


@pytest.mark.parametrize(
    ("first", "code", "pointer"),
    [
        ("not json", 4400, None),
        ("[1]", 4422, ""),
        ('{"query": ""}', 4422, "/query"),
        ('{"query": "hi", "qerry": 1}', 4422, "/qerry"),
        ('{"query": "hi", "agent": "nobody"}', 4422, "/agent"),
        ('{"query": "hi", "idempotencyKey": "with space"}', 4422, "/idempotencyKey"),
        ('{"streamId": "str_aaaaaaaaaaaaaaaaaaaaaaaaaa"}', 4404, None),
        ('{"streamId": "../../etc"}', 4404, None),
        ('{"streamId": "str_x", "after": -1}', 4422, "/after"),
        (b"\xff\xfe", 4400, None),
    ],
)
async def test_invalid_first_websocket_message_is_refused(
    stack: Stack, first: str | bytes, code: int, pointer: str | None
) -> None:
    async with open_socket(stack, first) as socket:
        (message,), closed = await receive_all(socket)
    assert closed == code, message
    assert message["error"]["status"] == code - 4000
    if pointer is not None:
        assert message["error"]["errors"][0]["pointer"] == pointer


async def test_websocket_refuses_a_future_index(stack: Stack) -> None:
    stream_id = await started(stack, agent="teller", params={"say": BODY})
    await stack.run_until(stream_id, "completed")
    async with open_socket(stack, {"streamId": stream_id, "after": 31}) as socket:
        (message,), code = await receive_all(socket)
    assert code == 4422
    assert message["error"]["errors"][0]["pointer"] == "/after"


async def test_invalid_later_websocket_message_does_not_end_the_stream(stack: Stack) -> None:
    async with open_socket(stack, slow_body(pause=0.05)) as socket:
        await receive_all(socket, 2)
        await socket.send("nonsense")
        await socket.send('{"stop": true}')
        lines, code = await receive_all(socket)
    assert [line["error"]["status"] for line in lines if "error" in line] == [400, 422]
    assert lines[-1]["status"] == "completed"
    assert code == 1000


async def test_failed_run_closes_the_websocket_with_its_problem(stack: Stack) -> None:
    async with open_socket(stack, {"query": "hi", "agent": "hopeless"}) as socket:
        (_, failed), code = await receive_all(socket)
    assert failed["error"]["code"] == "AgentRejected"
    assert code == 4502


async def test_stopping_process_closes_websockets_with_going_away(tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("stopping")
    async with running_stack(directory) as stack:
        async with open_socket(stack, slow_body(pause=1)) as socket:
            await receive_all(socket, 2)
            stack.streams.stop()
            lines, code = await receive_all(socket)
        assert lines[-1] == {"reconnect": True}
        assert code == 1012


async def test_invalid_parameter_of_the_handshake_is_a_problem(stack: Stack) -> None:
    url = f"ws://127.0.0.1:{stack.settings.port}/api/agent/stream/ws?onDisconnect=later"
    with pytest.raises(InvalidStatus) as caught:
        async with connect(url, proxy=None):
            pass
    answer = caught.value.response
    assert answer.status_code == 422
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert json.loads(answer.body or b"")["errors"][0]["pointer"] == "query:onDisconnect"
