"""Chat Completions and models, with the `openai` package."""

import asyncio
import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import (
    APIError,
    AsyncOpenAI,
    AuthenticationError,
    BadRequestError,
    InternalServerError,
    NotFoundError,
    OpenAI,
    PermissionDeniedError,
)

from sevenfold.contracts.agents.model_requests import MODEL_OPTIONS
from tests.support.openai_clients import asks, openai_client
from tests.support.receivers import running_receiver
from tests.support.stack import Stack, running_stack
from tests.support.tenants import TenantKey, key_config

ACME = TenantKey("acme")
READER = TenantKey("acme", ("runs:read",))
ASKER = '[agents.asker]\nkind = "python"\ntarget = "tests.support.durable_agents:asker"\n'
HELLO: list[Any] = [{"role": "user", "content": "hello"}]
KEY = base64.b64encode(bytes(32)).decode()
SECRET = "whsec_" + KEY
CHAT = "/v1/chat/completions"


@pytest.fixture
async def openai(stack: Stack) -> AsyncIterator[AsyncOpenAI]:
    async with openai_client(stack) as client:
        yield client


async def test_agents_are_models(openai: AsyncOpenAI) -> None:
    names = [one.id async for one in openai.models.list()]
    assert {"simulator", "echo", "teller"} <= set(names)
    assert (await openai.models.retrieve("echo")).owned_by == "sevenfold"
    with pytest.raises(NotFoundError, match="There is no agent nobody"):
        await openai.models.retrieve("nobody")


async def test_a_conversation_reaches_the_agent(stack: Stack, openai: AsyncOpenAI) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    found = await openai.chat.completions.create(
        model="listener",
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "assistant", "content": "Yes?"},
            {"role": "user", "content": [{"type": "text", "text": "what is this"}, image]},  # type: ignore[list-item]
        ],
        temperature=0.5,
        metadata={"team": "a"},
        tools=[{"type": "function", "function": {"name": "f", "parameters": {}}}],
        user="somebody",
    )
    answer = found.choices[0]
    assert (answer.finish_reason, answer.message.role, found.object) == ("stop", "assistant", "chat.completion")
    assert found.usage is not None
    run_id = found.model_extra["sevenfold"]["runId"]  # type: ignore[index]
    assert found.id == f"chatcmpl-{run_id}"
    assert answer.message.content == "what is this"
    asked = found.model_extra["sevenfold"]["data"]  # type: ignore[index]
    assert asked["params"] == {"temperature": 0.5}
    assert [one["role"] for one in asked["messages"]] == ["system", "assistant", "user"]
    assert asked["messages"][2]["content"][1] == image
    run = await stack.run(run_id)
    assert (run["pattern"], run["agent"], run["metadata"]) == ("synchronous", "listener", {"team": "a"})


async def test_every_option_of_a_model_reaches_the_agent(stack: Stack, openai: AsyncOpenAI) -> None:
    options: dict[str, Any] = {
        "temperature": 0.5,
        "top_p": 0.9,
        "max_tokens": 9,
        "max_completion_tokens": 8,
        "seed": 7,
        "stop": ["END"],
        "presence_penalty": 0.1,
        "frequency_penalty": 0.2,
        "reasoning_effort": "low",
        "response_format": {"type": "json_object"},
    }
    assert set(options) == set(MODEL_OPTIONS)
    found = await openai.chat.completions.create(model="listener", messages=HELLO, **options)
    assert found.model_extra["sevenfold"]["data"]["params"] == options  # type: ignore[index]
    response = await openai.responses.create(
        model="listener",
        input="x",
        max_output_tokens=8,
        reasoning={"effort": "low"},
        text={"format": {"type": "json_schema", "name": "a", "schema": {"type": "object"}}},
    )
    assert response.model_extra["sevenfold"]["data"]["params"] == {  # type: ignore[index]
        "max_completion_tokens": 8,
        "reasoning_effort": "low",
        "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}},
    }


async def test_the_gateways_own_options_hold(stack: Stack, openai: AsyncOpenAI) -> None:
    """A run behind this API has a webhook, priority, a deadline and limits, as any other."""
    async with running_receiver() as receiver:
        own = {
            "webhookUrl": receiver.url("/hook"),
            "webhookSecret": SECRET,
            "priority": 1,
            "timeout": 30,
            "maxTokens": 100_000,
        }
        found = await openai.chat.completions.create(
            model="simulator", messages=HELLO, extra_body={"sevenfold": {**own, "params": {"seconds": 0.1}}}
        )
        run_id = found.id.removeprefix("chatcmpl-")
        async with asyncio.timeout(20):
            while not receiver.posts:
                await asyncio.sleep(0.05)
    assert receiver.posts[0].json["queryId"] == run_id
    assert receiver.posts[0].json["result"]["response"] == found.choices[0].message.content
    with pytest.raises(InternalServerError) as late:
        await openai.chat.completions.create(
            model="careful", messages=HELLO, extra_body={"sevenfold": {"timeout": 1, "params": {"seconds": 5}}}
        )
    assert late.value.status_code == 504


async def test_a_stream_has_its_chunks_usage_and_end(openai: AsyncOpenAI) -> None:
    stream = await openai.chat.completions.create(
        model="teller",
        messages=HELLO,
        stream=True,
        stream_options={"include_usage": True},
        extra_body=asks(say=["one ", "two ", "three"]),
    )
    chunks = [one async for one in stream]
    assert [one.choices[0].delta.content for one in chunks if one.choices][:4] == ["", "one ", "two ", "three"]
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert len({one.id for one in chunks}) == 1


async def test_the_synchronous_client_and_its_stream_helper(stack: Stack) -> None:
    def talk() -> tuple[str, str]:
        base_url = f"http://127.0.0.1:{stack.settings.port}/v1"
        with OpenAI(base_url=base_url, api_key="any") as client:
            with client.chat.completions.stream(model="simulator", messages=HELLO) as stream:
                streamed = stream.get_final_completion().choices[0].message.content
            whole = client.chat.completions.create(model="simulator", messages=HELLO)
        return streamed or "", whole.choices[0].message.content or ""

    streamed, whole = await asyncio.to_thread(talk)
    assert streamed
    assert whole


async def test_an_idempotency_key_starts_one_run(openai: AsyncOpenAI) -> None:
    headers = {"Idempotency-Key": "chat-once"}
    found = [
        await openai.chat.completions.create(model="echo", messages=HELLO, extra_headers=headers) for _ in range(2)
    ]
    assert found[0].id == found[1].id


async def test_the_clients_own_retry_finds_its_run(stack: Stack) -> None:
    """The client sends no key by itself. Its connection is cut, and it sends the request again."""
    body = {"model": "careful", "messages": HELLO, **asks(seconds=1.5, own="retry")}
    url = f"http://127.0.0.1:{stack.settings.port}{CHAT}"
    async with httpx.AsyncClient() as http:
        with pytest.raises(httpx.ReadTimeout):
            await http.post(url, json=body, headers={"x-stainless-retry-count": "0"}, timeout=0.7)
        headers = {"x-stainless-retry-count": "1"}
        again = await http.post(url, json=body, headers=headers, timeout=20)
        third = await http.post(url, json=body, headers={"x-stainless-retry-count": "2"}, timeout=20)
        other = await http.post(url, json=body, timeout=20)
    assert again.status_code == 200, again.text
    assert again.json()["id"] == third.json()["id"]
    assert other.json()["id"] != again.json()["id"]
    runs = (await stack.http.get("/api/agent/runs", params={"agent": "careful", "limit": 100})).json()["items"]
    assert sum(f"chatcmpl-{one['id']}" in (again.json()["id"], other.json()["id"]) for one in runs) == 2


@pytest.mark.parametrize(
    ("changes", "param", "words"),
    [
        ({"n": 2}, "n", "one answer"),
        ({"messages": []}, "messages", "at least 1"),
        ({"messages": [{"role": "assistant", "content": None}]}, "messages", "no message has a content"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages.0.role", ""),
        ({"model": "nobody"}, "model", "nobody"),
        ({"sevenfold": {"unknown": 1}}, "sevenfold.unknown", ""),
        ({"sevenfold": {"timeout": -1}}, "sevenfold.timeout", ""),
    ],
)
async def test_bad_requests_have_the_clients_errors(
    changes: dict[str, Any], param: str, words: str, stack: Stack, openai: AsyncOpenAI
) -> None:
    answer = await stack.http.post(CHAT, json={"model": "echo", "messages": HELLO, **changes})
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert (error["param"], error["type"]) == (param, "invalid_request_error")
    assert words in error["message"]
    assert answer.headers["x-should-retry"] == "false"
    assert answer.headers["x-request-id"]


async def test_errors_are_of_the_clients_classes(openai: AsyncOpenAI) -> None:
    with pytest.raises(BadRequestError):
        await openai.chat.completions.create(model="echo", messages=HELLO, n=3)
    with pytest.raises(InternalServerError) as failed:
        await openai.chat.completions.create(model="hopeless", messages=HELLO)
    assert failed.value.status_code == 502
    assert failed.value.response.json()["sevenfold"]["runId"].startswith("qry_")
    stream = await openai.chat.completions.create(model="hopeless", messages=HELLO, stream=True)
    with pytest.raises(APIError, match=r".+"):
        [one async for one in stream]


async def test_a_reset_ends_the_stream_and_the_key_finds_the_whole(openai: AsyncOpenAI) -> None:
    headers = {"Idempotency-Key": "chat-reset"}

    async def talk() -> str:
        stream = await openai.chat.completions.create(
            model="whole_at_last", messages=HELLO, stream=True, extra_body=asks(pause=0.5), extra_headers=headers
        )
        return "".join([one.choices[0].delta.content or "" async for one in stream if one.choices])

    with pytest.raises(APIError, match="starts its answer anew"):
        await talk()
    assert await talk() == "the whole"


async def test_disconnects_cancel_only_if_the_client_wants_it(stack: Stack, openai: AsyncOpenAI) -> None:
    ended = {}
    for wish in ("cancel", "continue"):
        stream = await openai.chat.completions.create(
            model="teller",
            messages=HELLO,
            stream=True,
            extra_body=asks(say=["x"] * 20, pause=0.1),
            extra_headers={"x-sevenfold-on-disconnect": wish},
        )
        async for one in stream:
            if one.choices[0].delta.content:
                break
        await stream.close()
        ended[wish] = (await stack.run_until(one.id.removeprefix("chatcmpl-"), "completed", "cancelled"))["status"]
    assert ended == {"cancel": "cancelled", "continue": "completed"}


async def test_keys_are_api_keys(tmp_path: Path) -> None:
    async with running_stack(tmp_path, more_config=key_config(ACME, READER) + ASKER, secret_key=KEY) as keyed:
        async with openai_client(keyed, "nonsense", max_retries=0) as nobody:
            with pytest.raises(AuthenticationError):
                await nobody.models.list()
        async with openai_client(keyed, READER.text) as reader:
            assert (await reader.models.list()).data
            with pytest.raises(PermissionDeniedError):
                await reader.chat.completions.create(model="echo", messages=HELLO)
        async with openai_client(keyed, ACME.text) as acme:
            assert (await acme.chat.completions.create(model="echo", messages=HELLO)).id
            await _asks_for_approval(acme, tmp_path / "log")


async def _asks_for_approval(acme: AsyncOpenAI, log: Path) -> None:
    headers = {"Idempotency-Key": "ask-once"}
    body = asks(log=str(log))
    found = await acme.chat.completions.create(
        model="asker", messages=HELLO, extra_body=body, extra_headers={"Idempotency-Key": "ask-whole"}
    )
    (request,) = found.model_extra["sevenfold"]["requests"]  # type: ignore[index]
    assert request["url"] in (found.choices[0].message.content or "")
    stream = await acme.chat.completions.create(
        model="asker", messages=HELLO, stream=True, extra_body=body, extra_headers=headers
    )
    chunks = [one async for one in stream]
    (request,) = chunks[-1].model_extra["sevenfold"]["requests"]  # type: ignore[index]
    text = "".join(one.choices[0].delta.content or "" for one in chunks)
    assert request["url"] in text
    assert chunks[-1].choices[0].finish_reason == "stop"
    async with httpx.AsyncClient() as browser:
        page = await browser.get(request["url"])
        assert page.status_code == 200
