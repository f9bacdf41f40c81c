"""What particular clients need of the answers, or send to it: one row each."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.support.openai_clients import asks
from tests.support.stack import Stack

CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
HELLO = {"role": "user", "content": "hello"}
SAY = asks(say=["one ", "two"])


@dataclass(frozen=True)
class Exchange:
    """An answer: its body, or the data of its events, in order."""

    status: int
    headers: httpx.Headers
    body: dict[str, Any]
    events: list[dict[str, Any]]
    text: str


Check = Callable[[Exchange], bool]


def chat(**more: Any) -> dict[str, Any]:
    return {"model": "teller", "messages": [HELLO], **SAY, **more}


def responses(**more: Any) -> dict[str, Any]:
    return {"model": "teller", "input": "hello", **SAY, **more}


def deltas(exchange: Exchange) -> list[Any]:
    return [one["choices"][0]["delta"] for one in exchange.events if one.get("choices")]


def is_answered(exchange: Exchange) -> bool:
    return exchange.status == 200 and exchange.body["choices"][0]["message"]["content"] == "one two"


def is_responded(exchange: Exchange) -> bool:
    return exchange.status == 200 and exchange.body["output"][0]["content"][0]["text"] == "one two"


def of_type(exchange: Exchange, kind: str) -> list[dict[str, Any]]:
    return [one for one in exchange.events if one["type"] == kind]


def has_full_objects(exchange: Exchange) -> bool:
    """Codex reads usage and output from `response.completed`, and the text from the item that is done."""
    (done,) = of_type(exchange, "response.output_item.done")
    (completed,) = of_type(exchange, "response.completed")
    return (
        done["output_index"] == 0
        and done["item"]["content"][0]["text"] == "one two"
        and completed["response"]["output"] == [done["item"]]
        and "total_tokens" in completed["response"]["usage"]
        and all("output_index" in one for one in exchange.events if "item_id" in one)
    )


STREAM_QUIRKS: dict[str, tuple[str, dict[str, Any], Check]] = {
    "Open WebUI leaves a message blank where content is null": (
        CHAT,
        chat(stream=True),
        lambda exchange: all(isinstance(one.get("content", ""), str) for one in deltas(exchange)),
    ),
    "the first chunk has the role": (
        CHAT,
        chat(stream=True),
        lambda exchange: deltas(exchange)[0]["role"] == "assistant",
    ),
    "a stream ends with [DONE]": (
        CHAT,
        chat(stream=True),
        lambda exchange: exchange.text.rstrip().endswith("data: [DONE]"),
    ),
    "no usage without include_usage": (
        CHAT,
        chat(stream=True),
        lambda exchange: not any("usage" in one for one in exchange.events),
    ),
    "usage comes in a chunk of its own without choices": (
        CHAT,
        chat(stream=True, stream_options={"include_usage": True}),
        lambda exchange: exchange.events[-1]["choices"] == [] and "total_tokens" in exchange.events[-1]["usage"],
    ),
    "all chunks have one id": (
        CHAT,
        chat(stream=True),
        lambda exchange: len({one["id"] for one in exchange.events}) == 1,
    ),
    "created is a whole number": (
        CHAT,
        chat(stream=True),
        lambda exchange: all(type(one["created"]) is int for one in exchange.events),
    ),
    "a key `error` in an event raises in the client": (
        CHAT,
        chat(stream=True),
        lambda exchange: not any("error" in one for one in exchange.events),
    ),
    "proxies must not buffer": (
        CHAT,
        chat(stream=True),
        lambda exchange: "no-transform" in exchange.headers["cache-control"],
    ),
    "`.stream()` wants response.created first": (
        RESPONSES,
        responses(stream=True),
        lambda exchange: exchange.events[0]["type"] == "response.created",
    ),
    "an event's name is its type": (
        RESPONSES,
        responses(stream=True),
        lambda exchange: (
            [line[7:] for line in exchange.text.splitlines() if line.startswith("event: ")]
            == [one["type"] for one in exchange.events]
        ),
    ),
    "Responses has no [DONE]": (RESPONSES, responses(stream=True), lambda exchange: "[DONE]" not in exchange.text),
    "Codex reads whole objects from the last events": (RESPONSES, responses(stream=True), has_full_objects),
    "a failed stream has no key `error` beside the response": (
        RESPONSES,
        {"model": "hopeless", "input": "x", "stream": True},
        lambda exchange: exchange.events[-1]["type"] == "response.failed" and "error" not in exchange.events[-1],
    ),
    "Codex sends its own fields": (
        RESPONSES,
        responses(
            stream=True,
            store=False,
            include=["reasoning.encrypted_content"],
            prompt_cache_key="0b5c",
            tool_choice="auto",
            parallel_tool_calls=False,
            tools=[{"type": "function", "name": "shell", "strict": False, "parameters": {}}, {"type": "web_search"}],
            reasoning={"effort": "medium", "summary": "auto"},
            text={"verbosity": "low"},
            client_metadata={"a": "b"},
        ),
        lambda exchange: exchange.events[-1]["type"] == "response.completed",
    ),
}

QUIRKS: dict[str, tuple[str, dict[str, Any], Check]] = {
    "nulls mean absent": (
        CHAT,
        chat(n=None, stream=None, temperature=None, stop=None, metadata=None, tools=None, stream_options=None),
        is_answered,
    ),
    "n of 1 is fine": (CHAT, chat(n=1), is_answered),
    "LangChain sends stream false": (CHAT, chat(stream=False, parallel_tool_calls=True), is_answered),
    "the name of a speaker": (CHAT, chat(messages=[{**HELLO, "name": "ada"}]), is_answered),
    "role developer": (CHAT, chat(messages=[{"role": "developer", "content": "Be brief."}, HELLO]), is_answered),
    "an assistant's refusal in the conversation": (
        CHAT,
        chat(messages=[HELLO, {"role": "assistant", "content": None, "refusal": "no"}, HELLO]),
        is_answered,
    ),
    "content as parts": (
        CHAT,
        chat(messages=[{"role": "user", "content": [{"type": "text", "text": "hi"}]}]),
        is_answered,
    ),
    "stop as a list": (CHAT, chat(stop=["a", "b"]), is_answered),
    "logprobs, user, service_tier, modalities and functions are ignored": (
        CHAT,
        chat(logprobs=True, user="u", service_tier="auto", modalities=["text"], functions=[{"name": "f"}]),
        is_answered,
    ),
    "input as a text": (RESPONSES, responses(), is_responded),
    "items without a type are messages": (RESPONSES, responses(input=[HELLO]), is_responded),
    "items of reasoning are left out": (
        RESPONSES,
        responses(input=[{"type": "reasoning", "id": "rs_1", "summary": []}, HELLO]),
        is_responded,
    ),
    "items of an output may come back": (
        RESPONSES,
        responses(
            input=[
                HELLO,
                {
                    "id": "msg_1",
                    "type": "message",
                    "role": "assistant",
                    "status": "completed",
                    "content": [{"type": "output_text", "text": "Hi.", "annotations": [], "logprobs": []}],
                },
                HELLO,
            ]
        ),
        is_responded,
    ),
    "truncation, include, user and safety_identifier are ignored": (
        RESPONSES,
        responses(truncation="auto", include=[], user="u", safety_identifier="s"),
        is_responded,
    ),
    "metadata of strings": (RESPONSES, responses(metadata={"a": "1"}), is_responded),
}


async def ask(stack: Stack, path: str, body: dict[str, Any]) -> Exchange:
    answer = await stack.http.post(path, json=body, headers={"Authorization": "Bearer any"})
    text = answer.text
    data = [line[6:] for line in text.splitlines() if line.startswith("data: ") and line != "data: [DONE]"]
    is_json = answer.headers["content-type"].startswith("application/json")
    return Exchange(
        answer.status_code, answer.headers, answer.json() if is_json else {}, [json.loads(one) for one in data], text
    )


@pytest.mark.parametrize("quirk", STREAM_QUIRKS)
async def test_quirks_of_streams(quirk: str, stack: Stack) -> None:
    path, body, is_right = STREAM_QUIRKS[quirk]
    exchange = await ask(stack, path, body)
    assert exchange.headers["content-type"].startswith("text/event-stream"), exchange.text
    assert is_right(exchange), exchange.text


@pytest.mark.parametrize("quirk", QUIRKS)
async def test_quirks_of_whole_answers(quirk: str, stack: Stack) -> None:
    path, body, is_right = QUIRKS[quirk]
    exchange = await ask(stack, path, body)
    assert is_right(exchange), exchange.text


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/v1/embeddings"), ("POST", "/v1/completions"), ("GET", "/v1/files")]
)
async def test_what_is_not_offered_is_an_error_of_the_clients_form(method: str, path: str, stack: Stack) -> None:
    answer = await stack.http.request(method, path, json={} if method == "POST" else None)
    assert answer.status_code == 404
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
