"""The kind `openai` against a real server that speaks the protocol, which the `openai` package finds in order too."""

from collections.abc import AsyncIterator

import openai
import pytest

from sevenfold.adapters.agents.remote.chat_completions import CHAT_COMPLETIONS
from sevenfold.adapters.agents.remote.model_request import ModelConfig
from sevenfold.contracts.agents.errors import AgentError, AgentRateLimited, AgentRejected, AgentUnavailable
from sevenfold.contracts.agents.interface import AgentEvent, Delta, Reply, Usage
from tests.support.model_calls import ask_model
from tests.support.receivers import Receiver, running_receiver
from tests.support.upstreams import Script, chat, chat_chunk, events, reply_script, streams

PATH = "/v1/chat/completions"
SCHEMA = {"type": "object", "properties": {"mood": {"type": "string"}}, "required": ["mood"]}

WHOLE = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1_790_000_000,
    "model": "m",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "hello", "refusal": None}, "finish_reason": "stop"}
    ],
    "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
}


@pytest.fixture
async def server() -> AsyncIterator[Receiver]:
    async with running_receiver() as receiver:
        yield receiver


async def ask(
    server: Receiver, script: Script, terms: ModelConfig | None = None, **request: object
) -> list[AgentEvent]:
    return await ask_model(CHAT_COMPLETIONS, server, PATH, script, terms, **request)


async def test_scripted_server_works_with_the_openai_client(server: Receiver) -> None:
    """Its answers are what OpenAI's own client takes, streamed, whole, and as errors."""
    client = openai.AsyncOpenAI(base_url=server.url("/v1"), api_key="k", max_retries=0)
    messages = [{"role": "user", "content": "hi"}]
    server.by_path[PATH] = chat("Hel", "lo")
    stream = await client.chat.completions.create(
        model="m",
        messages=messages,  # type: ignore[arg-type]
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]  # type: ignore[attr-defined]
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "Hello"
    assert chunks[-1].usage.completion_tokens == 7
    server.by_path[PATH] = reply_script(WHOLE)
    whole = await client.chat.completions.create(model="m", messages=messages)  # type: ignore[call-overload]
    assert whole.choices[0].message.content == "hello"
    server.by_path[PATH] = reply_script({"error": {"message": "slow down"}}, 429, ("Retry-After", "2"))
    with pytest.raises(openai.RateLimitError, match="slow down"):
        await client.chat.completions.create(model="m", messages=messages)  # type: ignore[call-overload]
    await client.close()


async def test_request_equals_that_of_the_openai_client(server: Receiver) -> None:
    await ask(server, chat("x"), params={"temperature": 0.1, "max_tokens": 9})
    client = openai.AsyncOpenAI(base_url=server.url("/v1"), api_key="sk-secret", max_retries=0)
    async for _ in await client.chat.completions.create(
        model="m",
        messages=[{"role": "user", "content": "hi"}],
        stream=True,
        stream_options={"include_usage": True},
        temperature=0.1,
        max_tokens=9,
    ):
        pass
    await client.close()
    ours, theirs = server.posts
    assert ours.json == theirs.json
    assert ours.headers["authorization"] == theirs.headers["authorization"] == "Bearer sk-secret"


async def test_streamed_completion_with_usage(server: Receiver) -> None:
    assert await ask(server, chat("Hel", "lo", " 😀")) == [
        Delta(text="Hel"),
        Delta(text="lo"),
        Delta(text=" 😀"),
        Reply(response="Hello 😀", usage=Usage(input_tokens=11, output_tokens=7)),
    ]


async def test_server_without_streaming_is_read(server: Receiver) -> None:
    assert await ask(server, reply_script(WHOLE)) == [
        Reply(response="hello", usage=Usage(input_tokens=11, output_tokens=7)),
    ]


async def test_messages_hold_query_context_and_data(server: Receiver) -> None:
    terms = ModelConfig("m", system_prompt="Be brief.", options={"temperature": 0.5, "seed": 1})
    await ask(
        server,
        chat("x"),
        terms,
        query=None,
        task="generate_report",
        context={"customerId": "ü1"},
        params={"temperature": 0, "title": "Week 47"},
    )
    request_body = server.posts[0].json
    assert request_body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": 'Task: generate_report\n\nContext:\n{"customerId": "ü1"}\n\nParameters:\n{"title": "Week 47"}',
        },
    ]
    assert (request_body["temperature"], request_body["seed"]) == (0, 1)


async def test_json_schema_output_becomes_data(server: Receiver) -> None:
    terms = ModelConfig("m", json_schema=SCHEMA)
    answer = (await ask(server, chat('{"mood"', ': "fine"}'), terms))[-1]
    assert answer == Reply(
        response='{"mood": "fine"}', data={"mood": "fine"}, usage=Usage(input_tokens=11, output_tokens=7)
    )
    assert server.posts[0].json["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True},
    }
    with pytest.raises(AgentUnavailable, match="not the JSON"):
        await ask(server, chat("I feel fine."), terms)
    with pytest.raises(AgentRejected, match="max_tokens"):
        await ask(server, chat('{"mo', finish="length"), terms)


async def test_truncated_completion_is_reported(server: Receiver) -> None:
    answer = (await ask(server, chat("Once upon", finish="length")))[-1]
    assert isinstance(answer, Reply)
    assert (answer.response, answer.data) == ("Once upon", {"finishReason": "length"})


def _refusal() -> Script:
    delta = {"index": 0, "delta": {"refusal": "I will not."}, "finish_reason": None}
    return streams(*events({**chat_chunk(), "choices": [delta]}, chat_chunk(finish="stop"), "[DONE]"))


@pytest.mark.parametrize(
    ("script", "error", "detail"),
    [
        (
            reply_script({"error": {"message": "slow down"}}, 429, ("Retry-After", "2")),
            AgentRateLimited,
            "too many requests",
        ),
        (reply_script({"error": {"message": "overloaded"}}, 529), AgentUnavailable, "529"),
        (reply_script({"error": {"message": "no such model: m"}}, 404), AgentRejected, "no such model"),
        (reply_script({"error": {"message": "Incorrect API key provided: sk-sec***et"}}, 401), AgentRejected, "key"),
        (streams(*events(chat_chunk("Hel"), chat_chunk("lo"))), AgentUnavailable, "broke off"),
        (streams(*events(chat_chunk("Hel"), "[DONE]")), AgentUnavailable, "broke off"),
        (streams(*events(chat_chunk("Hel")), resets=True), AgentUnavailable, "broke"),
        (streams(*events(chat_chunk("Hel"), "{oops")), AgentUnavailable, "not JSON"),
        (streams(*events(chat_chunk("Hel"), {"x": 1})), AgentUnavailable, "broke off"),
        (streams(*events(chat_chunk("Hel")), hangs=10), AgentUnavailable, "sent nothing"),
        (streams(*events({"error": {"message": "busy", "code": 503}})), AgentUnavailable, "503"),
        (
            streams(*events({"error": {"message": "x", "type": "rate_limit_error"}})),
            AgentRateLimited,
            "too many requests",
        ),
        (
            streams(*events({"error": {"message": "too long", "type": "invalid_request_error"}})),
            AgentRejected,
            "long",
        ),
        (streams(*events({"error": {"message": "boom"}})), AgentUnavailable, "500"),
        (_refusal(), AgentRejected, "I will not."),
        (chat("x", finish="content_filter"), AgentRejected, "content_filter"),
        (chat(finish="tool_calls"), AgentRejected, "tool"),
        (reply_script({"choices": []}), AgentUnavailable, "broke off"),
        (reply_script({"choices": [3]}), AgentUnavailable, "broke off"),
        (reply_script(["x"]), AgentUnavailable, "not a chat completion"),
    ],
)
async def test_failed_completion_raises_its_agent_error(
    server: Receiver, script: Script, error: type[AgentError], detail: str
) -> None:
    with pytest.raises(error) as raised:
        await ask(server, script)
    assert type(raised.value) is error
    assert detail in raised.value.detail
    assert "sk-sec" not in raised.value.detail


async def test_api_key_appears_in_no_stream_error(server: Receiver) -> None:
    failure = {"error": {"message": "bad key sk-secret", "code": 400}}
    with pytest.raises(AgentRejected) as raised:
        await ask(server, streams(*events(chat_chunk("Hel"), failure)))
    assert "bad key" in raised.value.detail
    assert "sk-secret" not in raised.value.detail
