"""The cases of the Open Responses compliance suite, against the models of its specification.

Three of its cases ask for calls of tools, which an agent behind this gateway does not make: `tool-calling`,
`function-call-roundtrip` and `tool-calling-streaming`. `file-search` and `offline-web-search` are optional there, and
need stores that models of OpenAI have. What the gateway does with their requests, is tested here too.
"""

import json
import re
from typing import Any

import openresponses_types as spec
import pytest
from pydantic import BaseModel

from tests.support.stack import Stack

PNG = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAAB"
PDF = "data:application/pdf;base64,JVBERi0xLjEKJSVFT0Y="
WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "Get the current weather for a location",
    "parameters": {"type": "object", "properties": {"location": {"type": "string"}}, "required": ["location"]},
}


def message(role: str, content: Any) -> dict[str, Any]:
    return {"type": "message", "role": role, "content": content}


# The suite's own ids.
CASES: dict[str, list[Any]] = {
    "basic-response": [message("user", "Say hello in exactly 3 words.")],
    "system-prompt": [message("system", "You are a pirate."), message("user", "Say hello.")],
    "image-input": [
        message("user", [{"type": "input_text", "text": "What is it?"}, {"type": "input_image", "image_url": PNG}])
    ],
    "file-input": [
        message(
            "user",
            [
                {"type": "input_text", "text": "Answer with the title."},
                {"type": "input_file", "filename": "fixture.pdf", "file_data": PDF},
            ],
        )
    ],
    "multi-turn": [
        message("user", "My name is Alice."),
        message("assistant", "Hello Alice! How can I help you today?"),
        message("user", "What is my name?"),
    ],
}


async def respond(stack: Stack, **body: Any) -> spec.ResponseResource:
    answer = await stack.http.post("/v1/responses", json={"model": "echo", "stream": False, **body})
    assert answer.status_code == 200, answer.text
    return spec.ResponseResource.model_validate(answer.json())


def event_model(kind: str) -> type[BaseModel]:
    """The model of an event: `response.output_text.delta` is ResponseOutputTextDeltaStreamingEvent."""
    name = "".join(part.capitalize() for part in re.split(r"[._]", kind))
    found = getattr(spec, f"{name}StreamingEvent")
    assert issubclass(found, BaseModel)
    return found


async def events_of(stack: Stack, **body: Any) -> list[dict[str, Any]]:
    """The events of a stream, each of which fits its model, and whose name is its type."""
    found: list[dict[str, Any]] = []
    request = {"model": "simulator", "stream": True, **body}
    async with stack.http.stream("POST", "/v1/responses", json=request) as answer:
        assert answer.status_code == 200
        name = ""
        async for line in answer.aiter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            if line.startswith("data: "):
                event = json.loads(line.removeprefix("data: "))
                assert event["type"] == name
                event_model(name).model_validate(event)
                found.append(event)
    return found


@pytest.mark.parametrize("case", CASES)
async def test_cases_of_one_request(case: str, stack: Stack) -> None:
    response = await respond(stack, input=CASES[case])
    assert response.status == "completed"
    assert len(response.output) == 1


async def test_streaming_response(stack: Stack) -> None:
    events = await events_of(stack, input=[message("user", "Count from 1 to 5.")])
    assert events[0]["type"] == "response.created"
    assert events[-1]["type"] == "response.completed"
    assert events[-1]["response"]["status"] == "completed"


async def test_previous_response_id(stack: Stack) -> None:
    first = await respond(stack, input="Remember this code word: papaya.")
    second = await respond(stack, input="What was it?", previous_response_id=first.id)
    assert second.status == "completed"
    assert second.previous_response_id == first.id


async def test_what_is_not_completed_fits_the_specification(stack: Stack) -> None:
    """Beyond the suite: responses that wait, have failed, were cancelled, and a stream with a reset."""
    started = await stack.http.post("/v1/responses", json={"model": "hopeless", "input": "x", "background": True})
    assert spec.ResponseResource.model_validate(started.json()).status == "queued"
    failed = await events_of(stack, model="hopeless", input="x")
    assert failed[-1]["type"] == "response.failed"
    restarted = await events_of(stack, model="whole_at_last", input="x")
    assert restarted[-1]["response"]["output"][0]["content"][0]["text"] == "the whole"
    slow = {
        "model": "teller",
        "input": "x",
        "background": True,
        "sevenfold": {"params": {"say": ["x"] * 30, "pause": 0.1}},
    }
    running = (await stack.http.post("/v1/responses", json=slow)).json()
    cancelled = await stack.http.post(f"/v1/responses/{running['id']}/cancel")
    spec.ResponseResource.model_validate(cancelled.json())


@pytest.mark.parametrize(
    "tool", [WEATHER, {"type": "file_search", "vector_store_ids": ["vs_1"]}, {"type": "web_search"}]
)
async def test_tools_are_ignored(tool: dict[str, Any], stack: Stack) -> None:
    """An agent has its own tools, so the answer is a message, and not a call of a client's function."""
    response = await respond(stack, input=CASES["basic-response"], tools=[tool], tool_choice={"type": tool["type"]})
    assert [one.type for one in response.output] == ["message"]
    assert response.tools == []


async def test_results_of_tools_are_left_out(stack: Stack) -> None:
    call = {"type": "function_call", "call_id": "c", "name": "get_weather", "arguments": "{}"}
    result = {"type": "function_call_output", "call_id": "c", "output": "20 degrees"}
    response = await respond(stack, model="clerk", input=[*CASES["basic-response"], call, result], tools=[WEATHER])
    assert response.status == "completed"
