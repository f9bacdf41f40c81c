"""The requests of Open WebUI 0.12.4, as its source builds them, with what it reads of the answers.

From `routers/openai.py` (models, completions, the form of the Responses API), `routers/tasks.py` (titles, tags,
follow ups) and `utils/middleware.py` (tools, which it sends with every message where any are enabled).
"""

import json
from typing import Any

import pytest

from tests.support.stack import Stack

HEADERS = {"Authorization": "Bearer any", "Content-Type": "application/json"}
FORWARDED = {
    "X-OpenWebUI-User-Name": "Ada%20L",
    "X-OpenWebUI-User-Id": "b7a1",
    "X-OpenWebUI-User-Email": "ada@example.com",
    "X-OpenWebUI-User-Role": "admin",
    "X-OpenWebUI-Chat-Id": "3f6b",
}
TOOL = {"type": "function", "function": {"name": "search_web", "parameters": {"type": "object", "properties": {}}}}
CALL = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "search_web", "arguments": "{}"}}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
HELLO = {"role": "user", "content": "hello"}
TITLE = "### Task:\nGenerate a concise, 3-5 word title with an emoji summarizing the chat history."

BODIES: dict[str, dict[str, Any]] = {
    "a message": {"stream": True, "model": "simulator", "messages": [HELLO]},
    "with the model's parameters": {
        "stream": True,
        "model": "simulator",
        "messages": [{"role": "system", "content": "Be brief."}, HELLO],
        "temperature": 0.7,
        "top_p": 0.9,
        "seed": 7,
        "stop": ["END"],
        "max_tokens": 512,
        "logit_bias": {"50256": -100},
        "reasoning_effort": "low",
        "stream_options": {"include_usage": True},
    },
    "with tools": {"stream": True, "model": "simulator", "messages": [HELLO], "tools": [TOOL]},
    "after a call of a tool": {
        "stream": True,
        "model": "simulator",
        "messages": [
            HELLO,
            {"role": "assistant", "content": "", "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "call_1", "content": "found"},
        ],
        "tools": [TOOL],
    },
    "an image": {
        "stream": True,
        "model": "simulator",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "what is it"}, IMAGE]}],
    },
    "a long chat": {
        "stream": True,
        "model": "simulator",
        "messages": [HELLO, {"role": "assistant", "content": "Hi."}, {"role": "user", "content": "again"}],
    },
    "a title": {
        "model": "simulator",
        "messages": [{"role": "user", "content": TITLE}],
        "stream": False,
        "max_tokens": 1000,
    },
    "tags": {"model": "simulator", "messages": [{"role": "user", "content": "Generate 1-3 tags."}], "stream": False},
    "follow ups": {"model": "simulator", "messages": [{"role": "user", "content": "Suggest 3-5."}], "stream": False},
}


async def test_models_are_found(stack: Stack) -> None:
    answer = await stack.http.get("/v1/models", headers={"Authorization": "Bearer any"})
    found = answer.json()
    assert answer.headers["content-type"] == "application/json"
    assert "simulator" in [one["id"] for one in found["data"]]


@pytest.mark.parametrize("headers", [HEADERS, {**HEADERS, **FORWARDED}], ids=["plain", "with the user"])
@pytest.mark.parametrize("name", BODIES)
async def test_requests_are_answered(name: str, headers: dict[str, str], stack: Stack) -> None:
    body = BODIES[name]
    async with stack.http.stream("POST", "/v1/chat/completions", json=body, headers=headers) as answer:
        assert answer.status_code == 200, await answer.aread()
        if not body["stream"]:
            whole = json.loads(await answer.aread())
            assert whole["choices"][0]["message"]["content"]
            return
        assert "text/event-stream" in answer.headers["content-type"]
        lines = [line async for line in answer.aiter_lines()]
    data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    assert data[-1] == "[DONE]"
    chunks = [json.loads(one) for one in data[:-1]]
    # It leaves a bubble blank where content is null.
    contents = [one["choices"][0]["delta"].get("content", "") for one in chunks if one["choices"]]
    assert all(isinstance(one, str) for one in contents)
    assert "".join(contents)
    assert any("usage" in one for one in chunks) == ("stream_options" in body)


async def test_its_form_of_responses(stack: Stack) -> None:
    body = {
        "model": "simulator",
        "stream": True,
        "instructions": "Be brief.",
        "input": [
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hello"}]},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hi."}]},
            {"type": "function_call", "call_id": "call_1", "name": "search_web", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "call_1", "output": "found"},
            {
                "type": "message",
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "and this"},
                    {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "auto"},
                ],
            },
        ],
        "tools": [{"type": "function", "name": "search_web", "parameters": {}}],
    }
    async with stack.http.stream("POST", "/v1/responses", json=body, headers=HEADERS) as answer:
        events = [json.loads(line[6:]) async for line in answer.aiter_lines() if line.startswith("data: ")]
    assert events[-1]["type"] == "response.completed"
    assert events[-1]["response"]["output"][0]["content"][0]["text"]


async def test_refusals_are_shown(stack: Stack) -> None:
    """It shows `error.message`, or the whole of `error`."""
    body = {**BODIES["a message"], "model": "nobody"}
    answer = await stack.http.post("/v1/chat/completions", json=body, headers=HEADERS)
    assert answer.status_code == 400
    assert "nobody" in answer.json()["error"]["message"]
