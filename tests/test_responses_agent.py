"""The kind `openai` with OpenAI's Responses API; the `openai` package finds the scripted server in order too."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import openai
import pytest

from sevenfold.adapters.agents.loading import load_agents
from sevenfold.adapters.agents.remote.model_request import ModelConfig
from sevenfold.adapters.agents.remote.responses import RESPONSES
from sevenfold.contracts.agents.errors import AgentError, ErrorCode
from sevenfold.contracts.agents.interface import AgentContext, AgentEvent, AgentRequest, Delta, Reply, Usage
from sevenfold.contracts.config.schema import SevenfoldConfig
from tests.support.model_calls import ask_model
from tests.support.receivers import Receiver, running_receiver
from tests.support.upstreams import Script, events, reply_script, streams

PATH = "/v1/responses"
SCHEMA = {"type": "object", "properties": {"mood": {"type": "string"}}, "required": ["mood"]}


def whole(text: str = "", **changes: object) -> dict[str, Any]:
    content = [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}]
    message = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": content}
    usage = {
        "input_tokens": 11,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 7,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 18,
    }
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1_790_000_000,
        "status": "completed",
        "model": "m",
        "output": [message] if text else [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": usage,
        **changes,
    }


def delta(text: str, number: int = 0) -> dict[str, object]:
    head = {"item_id": "msg_1", "output_index": 0, "content_index": 0, "logprobs": []}
    return {"type": "response.output_text.delta", "delta": text, "sequence_number": number, **head}


def error(code: str, message: str) -> dict[str, object]:
    return {"type": "error", "code": code, "message": message, "param": None, "sequence_number": 1}


def ended(kind: str = "completed", **changes: object) -> dict[str, object]:
    return {"type": f"response.{kind}", "sequence_number": 99, "response": whole("Hello", **changes)}


def response(*texts: str) -> Script:
    created = {"type": "response.created", "sequence_number": 0, "response": whole(status="in_progress")}
    pieces = [delta(text, number) for number, text in enumerate(texts, 1)]
    return streams(*events(created, *pieces, ended()))


@pytest.fixture
async def server() -> AsyncIterator[Receiver]:
    async with running_receiver() as receiver:
        yield receiver


async def ask(
    server: Receiver, script: Script, terms: ModelConfig | None = None, **request: object
) -> list[AgentEvent]:
    return await ask_model(RESPONSES, server, PATH, script, terms, **request)


async def test_scripted_server_works_with_the_openai_client(server: Receiver) -> None:
    client = openai.AsyncOpenAI(base_url=server.url("/v1"), api_key="k", max_retries=0)
    server.by_path[PATH] = response("Hel", "lo")
    stream = await client.responses.create(model="m", input="hi", stream=True)
    found = [event async for event in stream]
    assert "".join(one.delta for one in found if one.type == "response.output_text.delta") == "Hello"
    assert found[-1].type == "response.completed"
    server.by_path[PATH] = reply_script(whole("Hello"))
    assert (await client.responses.create(model="m", input="hi")).output_text == "Hello"
    await client.close()


async def test_request_equals_that_of_the_openai_client(server: Receiver) -> None:
    terms = ModelConfig("m", system_prompt="Be brief.", json_schema=SCHEMA, options={"truncation": "auto"})
    answer = response('{"mood": "good"}')
    await ask(
        server, answer, terms, params={"temperature": 0.1, "max_tokens": 9, "reasoning_effort": "low", "seed": 1}
    )
    client = openai.AsyncOpenAI(base_url=server.url("/v1"), api_key="sk-secret", max_retries=0)
    schema = {"type": "json_schema", "name": "answer", "schema": SCHEMA, "strict": True}
    await client.responses.create(
        model="m",
        input="hi",
        instructions="Be brief.",
        stream=True,
        store=False,
        truncation="auto",
        temperature=0.1,
        max_output_tokens=9,
        reasoning={"effort": "low"},
        text={"format": schema},  # type: ignore[typeddict-item]
    )
    await client.close()
    ours, theirs = server.posts
    assert ours.json == theirs.json
    assert ours.headers["authorization"] == theirs.headers["authorization"] == "Bearer sk-secret"


async def test_streamed_response_with_usage(server: Receiver) -> None:
    assert await ask(server, response("Hel", "lo")) == [
        Delta(text="Hel"),
        Delta(text="lo"),
        Reply(response="Hello", usage=Usage(input_tokens=11, output_tokens=7)),
    ]


async def test_server_without_streaming_is_read(server: Receiver) -> None:
    assert (await ask(server, reply_script(whole("Hello"))))[-1] == Reply(
        response="Hello", usage=Usage(input_tokens=11, output_tokens=7)
    )


async def test_json_schema_output_becomes_data(server: Receiver) -> None:
    answer = streams(*events(delta('{"mood": '), delta('"good"}'), ended()))
    (*_, reply) = await ask(server, answer, ModelConfig("m", json_schema=SCHEMA))
    assert isinstance(reply, Reply)
    assert reply.data == {"mood": "good"}


async def test_cut_off_response_is_reported(server: Receiver) -> None:
    cut = ended("incomplete", status="incomplete", incomplete_details={"reason": "max_output_tokens"})
    (*_, reply) = await ask(server, streams(*events(delta("Hel"), cut)))
    assert isinstance(reply, Reply)
    assert reply.data == {"finishReason": "max_output_tokens"}


CALL = {"type": "function_call", "id": "fc_1", "call_id": "c", "name": "f", "arguments": "{}"}
REFUSAL = {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}


@pytest.mark.parametrize(
    ("script", "code", "detail"),
    [
        (streams(*events(delta("Hel"))), ErrorCode.AGENT_UNAVAILABLE, "broke off before response.completed"),
        (
            streams(*events(ended("failed", status="failed", error={"code": "server_error", "message": "x"}))),
            ErrorCode.AGENT_UNAVAILABLE,
            "answered 500",
        ),
        (
            streams(
                *events({"type": "error", "code": "rate_limit_exceeded", "message": "slow", "sequence_number": 1})
            ),
            ErrorCode.AGENT_RATE_LIMITED,
            "too many requests",
        ),
        (
            streams(
                *events({"type": "error", "code": "invalid_prompt", "message": "not this", "sequence_number": 1})
            ),
            ErrorCode.AGENT_REJECTED,
            "not this",
        ),
        (
            streams(*events(ended("incomplete", incomplete_details={"reason": "content_filter"}))),
            ErrorCode.AGENT_REJECTED,
            "content_filter",
        ),
        (reply_script(whole(output=[CALL])), ErrorCode.AGENT_REJECTED, "a tool call"),
        (reply_script(whole(output=[REFUSAL])), ErrorCode.AGENT_REJECTED, "The model refuses: No."),
        (reply_script([1]), ErrorCode.AGENT_UNAVAILABLE, "not a response of the Responses API"),
        (streams(*events("[1]")), ErrorCode.AGENT_UNAVAILABLE, "not an event of the Responses API"),
        (reply_script({"error": {"message": "bad key sk-secret"}}, 401), ErrorCode.AGENT_REJECTED, "rejects the key"),
        (reply_script({"error": {"message": "x"}}, 429, ("Retry-After", "2")), ErrorCode.AGENT_RATE_LIMITED, "429"),
    ],
)
async def test_failed_response_raises_its_agent_error(
    server: Receiver, script: Script, code: ErrorCode, detail: str
) -> None:
    with pytest.raises(AgentError) as raised:
        await ask(server, script)
    assert raised.value.code is code
    assert detail in raised.value.detail
    assert "sk-secret" not in raised.value.detail


@pytest.mark.parametrize(
    ("api", "base", "address"),
    [
        ("chat", "http://h/v1/", "http://h/v1/chat/completions"),
        ("responses", "http://h/v1", "http://h/v1/responses"),
        (
            "chat",
            "https://x.openai.azure.com/openai/deployments/d?api-version=2024-10-21",
            "https://x.openai.azure.com/openai/deployments/d/chat/completions?api-version=2024-10-21",
        ),
    ],
)
def test_addresses_of_the_apis(api: str, base: str, address: str) -> None:
    section = {"kind": "openai", "api": api, "base_url": base, "model": "m"}
    config = SevenfoldConfig.model_validate({"agents": {"model": section}})
    assert config.agents["model"].address == address  # type: ignore[union-attr]


async def test_configured_api_is_called(server: Receiver) -> None:
    server.by_path[PATH] = response("Hello")
    section = {"kind": "openai", "api": "responses", "base_url": server.url("/v1"), "model": "m"}
    config = SevenfoldConfig.model_validate({"agents": {"model": section}})
    agents = load_agents(config.direct_agents, Path(), {})
    agent = agents.get("model")
    assert agent is not None
    context = AgentContext(datetime.now(UTC) + timedelta(seconds=30))
    found = [event async for event in agent.run(AgentRequest(run_id="q", task="query", query="hi"), context)]
    assert isinstance(found[-1], Reply)
    await agents.aclose()
