"""What hostile requests and odd moments found in OpenAI's API: no 5xx, no hang, no text twice, no run without end."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from bench.ports import free_port
from tests.support.openai_clients import asks
from tests.support.stack import Sevenfold, Stack, another_api, make_settings, running_stack, sevenfold, until_ready

CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
HELLO = [{"role": "user", "content": "hello"}]
AGENTS = "".join(
    f'[agents.{name}]\nkind = "python"\ntarget = "tests.support.{module}:{name}"\ncircuit = {{enabled = false}}\n'
    for module, names in (("durable_agents", ("asker",)), ("agents", ("mute", "held", "empty", "torn_mute")))
    for name in names
)


def circular(port: int, log: Path) -> str:
    """Agents that call themselves, and one behind whom somebody asks."""
    base = f'kind = "openai"\nbase_url = "http://127.0.0.1:{port}/v1"\n'
    return AGENTS + "".join(
        f'[agents.{name}]\n{base}api = "{api}"\nmodel = "{model}"\ncircuit = {{enabled = false}}\n'
        f'options = {{sevenfold = {{params = {{log = "{log}"}}}}}}\n'
        for name, api, model in (
            ("self_chat", "chat", "self_chat"),
            ("self_responses", "responses", "self_responses"),
            ("asks_behind", "responses", "asker"),
        )
    )


@pytest.fixture(scope="module")
async def own(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    async with running_stack(tmp_path_factory.mktemp("own"), more_config=AGENTS) as running:
        yield running


def events_in(text: str) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ") and line[6:] != "[DONE]"]


async def read(stack: Stack, response_id: str, after: int | None = None) -> list[dict[str, Any]]:
    query = "" if after is None else f"&starting_after={after}"
    answer = await stack.http.get(f"{RESPONSES}/{response_id}?stream=true{query}", timeout=20)
    assert answer.status_code == 200, answer.text
    return events_in(answer.text)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("path", "body"), [(CHAT, {"messages": HELLO}), (RESPONSES, {"input": "x"})], ids=["chat", "responses"]
)
async def test_metadata_that_is_too_large_is_refused(path: str, body: Any, stream: bool, stack: Stack) -> None:
    body = {"model": "echo", "metadata": {"a": "v" * 9_000}, "stream": stream, **body}
    answer = await stack.http.post(path, json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "metadata"


@pytest.mark.parametrize(
    ("path", "changes", "param", "code"),
    [
        (RESPONSES, {"input": 5}, "input", "invalid-request"),
        (RESPONSES, {"input": [HELLO[0]] * 1_001}, "input", "invalid-request"),
        (RESPONSES, {"input": [{"role": "user", "content": [{"type": "input_text", "text": 5}]}]}, "input", None),
        (RESPONSES, {"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input", None),
        (CHAT, {"stop": 1}, "stop", None),
        (CHAT, {"messages": [{"role": "user", "content": 5}]}, "messages.0.content", None),
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages.0.content", None),
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages.0.content", None),
        (CHAT, {"sevenfold": {"webhookUrl": "https://localhost/"}}, "sevenfold.webhookSecret", None),
        (CHAT, {"sevenfold": {"webhookEndpoint": "nobody"}}, "sevenfold.webhookEndpoint", None),
        (CHAT, {"model": "nobody"}, "model", "model_not_found"),
        (CHAT, {"model": None}, "model", "invalid-request"),
        (CHAT, {"model": 5}, "model", "invalid-request"),
    ],
)
async def test_errors_name_the_clients_own_field(
    path: str, changes: dict[str, Any], param: str, code: str | None, stack: Stack
) -> None:
    body = {"model": "echo", **({"messages": HELLO} if path == CHAT else {"input": "x"}), **changes}
    answer = await stack.http.post(path, json=body)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["param"] == param
    assert code in (None, error["code"])
    assert "/agent" not in error["message"]


@pytest.mark.parametrize("body", ["", "[]", "null", '"x"'])
async def test_a_body_that_is_no_object_names_no_field(body: str, stack: Stack) -> None:
    answer = await stack.http.post(CHAT, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] is None


@pytest.mark.parametrize("path", [CHAT, "/v1/nothing", "/v1/responses/resp_nothing"])
async def test_head_of_an_error_has_no_body_and_no_fault(path: str, stack: Stack) -> None:
    answer = await stack.http.head(path)
    assert answer.status_code in (404, 405)
    assert answer.headers["x-request-id"]


async def test_query_parameters_of_openai_are_ignored(stack: Stack) -> None:
    body = {"model": "echo", "input": "x"}
    made = (await stack.http.post(f"{RESPONSES}?api-version=2024-10-21", json=body)).json()
    for query in ("include=a&include=b", "include_obfuscation=false"):
        assert (await stack.http.get(f"{RESPONSES}/{made['id']}?{query}")).status_code == 200
    items = await stack.http.get(f"{RESPONSES}/{made['id']}/input_items?include=a")
    assert items.status_code == 200


async def test_a_bare_run_id_cancels_and_deletes_nothing(stack: Stack) -> None:
    body = {"model": "careful", "input": "x", "background": True, **asks(seconds=1.5)}
    run_id = (await stack.http.post(RESPONSES, json=body)).json()["id"].removeprefix("resp_")
    assert (await stack.http.post(f"{RESPONSES}/{run_id}/cancel")).status_code == 404
    assert (await stack.run_until(run_id, "completed", "cancelled"))["status"] == "completed"
    assert (await stack.http.delete(f"{RESPONSES}/{run_id}")).status_code == 404


@pytest.mark.parametrize("more", [{}, {"stream": True}, {"background": True}], ids=["whole", "stream", "background"])
async def test_equal_repetitions_at_once_are_one_run(more: dict[str, Any], stack: Stack) -> None:
    body = {"model": "echo", "input": f"once {more}", **more}
    headers = {"x-stainless-retry-count": "1"}
    answers = await asyncio.gather(*(stack.http.post(RESPONSES, json=body, headers=headers) for _ in range(4)))
    ids = {
        one.json()["id"] if not more.get("stream") else events_in(one.text)[0]["response"]["id"] for one in answers
    }
    assert len(ids) == 1


@pytest.mark.parametrize("way", ["stream", "background", "whole"])
async def test_resumptions_of_what_streamed_nothing_repeat_nothing(way: str, own: Stack) -> None:
    """At each number that the stream has, and at its end."""
    body = {"model": "echo", "input": "hi", **({} if way == "whole" else {way: True})}
    answer = await own.http.post(RESPONSES, json=body)
    made = events_in(answer.text)[0]["response"]["id"] if way == "stream" else answer.json()["id"]
    await own.run_until(made.removeprefix("resp_"), "completed")
    everything = await read(own, made)
    if way == "stream":
        assert [(one["type"], one["sequence_number"]) for one in events_in(answer.text)] == [
            (one["type"], one["sequence_number"]) for one in everything
        ]
    assert "".join(one["delta"] for one in everything if "delta" in one) == "hi"
    for known in everything:
        rest = await read(own, made, known["sequence_number"])
        expected = [one for one in everything if one["sequence_number"] > known["sequence_number"]]
        assert [one["sequence_number"] for one in rest] == [one["sequence_number"] for one in expected]


@pytest.mark.parametrize("agent", ["hopeless", "mute", "torn_mute", "empty"])
async def test_the_end_without_text_comes_once(agent: str, own: Stack) -> None:
    """A run that failed, one that answers with data alone, and one that does so after a reset."""
    everything = events_in((await own.http.post(RESPONSES, json={"model": agent, "input": "x", "stream": True})).text)
    made = everything[0]["response"]["id"]
    for known in everything:
        rest = await read(own, made, known["sequence_number"])
        assert [one["sequence_number"] for one in rest] == [
            one["sequence_number"] for one in everything if one["sequence_number"] > known["sequence_number"]
        ]


async def test_an_answer_of_data_alone_is_streamed_as_json(own: Stack) -> None:
    chat = await own.http.post(CHAT, json={"model": "mute", "messages": HELLO, "stream": True})
    chunks = [one for one in events_in(chat.text) if one["choices"]]
    assert json.loads("".join(one["choices"][0]["delta"].get("content") or "" for one in chunks)) == {"only": "data"}
    events = events_in((await own.http.post(RESPONSES, json={"model": "mute", "input": "x", "stream": True})).text)
    assert json.loads("".join(one["delta"] for one in events if "delta" in one)) == {"only": "data"}
    assert events[-1]["response"]["output"][0]["content"][0]["text"] == json.dumps({"only": "data"})


@pytest.mark.parametrize("after", [None, 3, 5])
async def test_a_stream_of_a_run_that_asks_ends_with_the_question(
    after: int | None, own: Stack, tmp_path: Path
) -> None:
    """Nobody read the run when it asked, so its stream has no question."""
    body = {"model": "asker", "input": "x", "background": True, **asks(log=str(tmp_path / "log"))}
    made = (await own.http.post(RESPONSES, json=body)).json()["id"]
    await own.run_until(made.removeprefix("resp_"), "input_required")
    events = await read(own, made, after)
    assert events[-1]["type"] == "response.incomplete"
    assert events[-1]["response"]["sevenfold"]["requests"]


async def test_agents_that_call_themselves_come_to_an_end(tmp_path: Path) -> None:
    """And a question behind a gateway is part of the answer in front."""
    port = free_port()
    async with running_stack(tmp_path, more_config=circular(port, tmp_path / "log"), port=port) as circle:
        for api in ("chat", "responses"):
            answer = await circle.http.post(RESPONSES, json={"model": f"self_{api}", "input": "x"})
            assert answer.status_code == 502, answer.text
            assert "passed 8 gateways" in answer.json()["error"]["message"]
        await asyncio.sleep(1)
        runs = (await circle.http.get("/api/agent/runs", params={"limit": 100})).json()["items"]
        assert len(runs) <= 2 * 10
        assert {one["status"] for one in runs} == {"failed"}
        asked = await circle.http.post(
            RESPONSES, json={"model": "asks_behind", "input": "x", "stream": True}, timeout=30
        )
        text = "".join(one["delta"] for one in events_in(asked.text) if "delta" in one)
        assert text.startswith("thinking ")
        assert "May I?" in text


@pytest.mark.parametrize("retry", ["chat", "resumption"])
async def test_an_open_run_is_joined_at_once(retry: str, own: Stack, tmp_path: Path) -> None:
    """A Chat stream repeated with its key, and a resumption after a reset, while the agent waits."""
    hold = tmp_path / "hold"
    say = ["x"] * 30  # it waits after 25
    if retry == "chat":
        headers = {"Idempotency-Key": f"join-{tmp_path.name}"}
        body = {"model": "teller", "messages": HELLO, "stream": True, **asks(say=say, hold=str(hold))}
        url, method = CHAT, "POST"
        async with own.http.stream("POST", CHAT, json=body, headers=headers) as first:
            await anext(first.aiter_bytes())
    else:
        body = {"model": "held", "input": "x", "background": True, **asks(hold=str(hold))}
        made = (await own.http.post(RESPONSES, json=body)).json()["id"]
        async with own.http.stream("GET", f"{RESPONSES}/{made}?stream=true") as first:
            async for line in first.aiter_lines():
                if line.startswith("data: ") and json.loads(line[6:])["sequence_number"] > 1_003:
                    break
        url, method, body, headers = f"{RESPONSES}/{made}?stream=true&starting_after=1003", "GET", None, {}
    async with asyncio.timeout(10), own.http.stream(method, url, json=body, headers=headers) as joined:
        assert joined.status_code == 200
        text = ""
        async for piece in joined.aiter_text():
            hold.touch()  # only now that it has the first piece
            text += piece
    assert "response.completed" in text or "[DONE]" in text


async def test_a_last_turn_that_writes_nothing_new_repeats_nothing(own: Stack, tmp_path: Path) -> None:
    body = {"model": "asker", "input": "x", "stream": True, **asks(log=str(tmp_path / "log"), silent=True)}
    asked = events_in((await own.http.post(RESPONSES, json=body)).text)
    run_id = asked[0]["response"]["id"].removeprefix("resp_")
    given = {"responses": {"may-i": {"action": "decline"}}}
    assert (await own.http.post(f"/api/agent/runs/{run_id}/responses", json=given)).status_code == 200
    await own.run_until(run_id, "completed")
    everything = await read(own, f"resp_{run_id}")
    assert "".join(one["delta"] for one in everything if "delta" in one) == "thinking "
    for known in everything:
        rest = await read(own, f"resp_{run_id}", known["sequence_number"])
        assert [one["sequence_number"] for one in rest] == [
            one["sequence_number"] for one in everything if one["sequence_number"] > known["sequence_number"]
        ]


async def test_a_log_line_names_its_own_run(tmp_path: Path) -> None:
    """A large body, then on the same connection a request that starts nothing."""
    settings = make_settings(tmp_path)
    with sevenfold("dev", settings) as running:
        await until_ready(settings.port, process=running)
        limits = httpx.Limits(max_connections=1, max_keepalive_connections=1)
        base = f"http://127.0.0.1:{settings.port}"
        async with httpx.AsyncClient(base_url=base, limits=limits, timeout=60) as http:
            large = await http.post(RESPONSES, json={"model": "echo", "input": "x" * 5_000_000})
            assert large.status_code == 200
            assert (await http.post(CHAT, json={"model": "nobody", "messages": HELLO})).status_code == 400
        async with asyncio.timeout(20):
            while not (refused := [one for one in lines_of(running) if (one["event"], one.get("status")) == REFUSED]):
                await asyncio.sleep(0.2)
    assert "run_id" not in refused[0], refused


REFUSED = ("request", 400)


def lines_of(running: Sevenfold) -> list[dict[str, Any]]:
    return [json.loads(line) for line in running.output().splitlines() if line.startswith("{") and line.endswith("}")]


@pytest.mark.parametrize(
    ("agent", "params"), [("whole_at_last", {}), ("teller", {"say": ["a", "b", "c"]}), ("echo", {})]
)
async def test_replicas_number_events_alike(agent: str, params: dict[str, Any], stack: Stack) -> None:
    body = {"model": agent, "input": "x", "stream": True, **asks(**params)}
    live = events_in((await stack.http.post(RESPONSES, json=body)).text)
    async with another_api(stack) as replica:
        elsewhere = await read(replica, live[0]["response"]["id"])
    assert [(one["type"], one["sequence_number"]) for one in elsewhere] == [
        (one["type"], one["sequence_number"]) for one in live
    ]
