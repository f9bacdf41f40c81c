"""The Responses API, with the `openai` package: streams, background, resumption, conversations."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI, BadRequestError, ConflictError, InternalServerError, NotFoundError

from sevenfold.contracts.agents.questions import QuestionResponse
from tests.support.openai_clients import asks, openai_client
from tests.support.stack import Stack, running_stack

ASKER = '[agents.asker]\nkind = "python"\ntarget = "tests.support.durable_agents:asker"\n'
ORDER = [
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.content_part.added",
    "response.output_text.delta",
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.completed",
]
REQUIRED = {
    *("id", "object", "created_at", "status", "background", "completed_at", "error", "incomplete_details", "usage"),
    *("instructions", "max_output_tokens", "max_tool_calls", "model", "output", "parallel_tool_calls", "metadata"),
    *("previous_response_id", "presence_penalty", "frequency_penalty", "prompt_cache_key", "reasoning", "text"),
    *("safety_identifier", "service_tier", "store", "temperature", "tool_choice", "tools", "top_logprobs", "top_p"),
    "truncation",
}


@pytest.fixture
async def openai(stack: Stack) -> AsyncIterator[AsyncOpenAI]:
    async with openai_client(stack) as client:
        yield client


async def events_of(stream: Any) -> list[Any]:
    return [one async for one in stream]


async def test_a_response_is_a_run(stack: Stack, openai: AsyncOpenAI) -> None:
    found = await openai.responses.create(
        model="echo", input="what is this", instructions="Be brief.", metadata={"team": "a"}, temperature=0.5
    )
    assert (found.status, found.output_text, found.instructions) == ("completed", "what is this", "Be brief.")
    assert set(found.to_dict()) >= REQUIRED
    run_id = found.id.removeprefix("resp_")
    assert (await stack.run(run_id))["pattern"] == "synchronous"
    again = await openai.responses.retrieve(found.id)
    assert again.output == found.output
    assert (again.metadata, again.temperature, again.instructions) == ({"team": "a"}, 0.5, "Be brief.")
    with pytest.raises(NotFoundError):
        await openai.responses.retrieve("resp_qry_aaaaaaaaaaaaaaaaaaaaaaaaaa")
    with pytest.raises(NotFoundError):
        await openai.responses.retrieve("nonsense")


async def test_the_order_and_numbers_of_events(openai: AsyncOpenAI) -> None:
    say = ["one ", "two ", "three"]
    events = await events_of(
        await openai.responses.create(model="teller", input="x", stream=True, extra_body=asks(say=say))
    )
    assert list(dict.fromkeys(one.type for one in events)) == ORDER
    assert [one.sequence_number for one in events] == list(range(len(events)))
    completed = events[-1].response
    assert completed.output_text == "one two three"
    assert set(completed.to_dict()) >= REQUIRED
    item = events[2].item.id
    assert {one.item_id for one in events if one.type == "response.output_text.delta"} == {item}
    assert completed.output[0].id == item
    for after in (0, 3, 4, 6, 8, len(events) - 1):
        resumed = await openai.responses.retrieve(completed.id, stream=True, starting_after=after)
        rest = await events_of(resumed)
        assert [(one.type, one.sequence_number) for one in rest] == [
            (one.type, one.sequence_number) for one in events if one.sequence_number > after
        ]
    assert (await openai.responses.retrieve(completed.id)).output == completed.output


async def test_the_stream_helper(openai: AsyncOpenAI) -> None:
    async with openai.responses.stream(model="simulator", input="hello") as stream:
        events = [one async for one in stream]
        final = await stream.get_final_response()
    assert events[0].type == "response.created"
    assert final.output_text
    assert final.status == "completed"


async def test_background_is_polled_streamed_and_cancelled(stack: Stack, openai: AsyncOpenAI) -> None:
    body = asks(say=["x"] * 30, pause=0.1)
    started = await openai.responses.create(model="teller", input="x", background=True, extra_body=body)
    assert (started.status, started.background) == ("queued", True)
    assert (await stack.run(started.id.removeprefix("resp_")))["pattern"] == "polling"
    seen: list[int] = []
    async for one in await openai.responses.retrieve(started.id, stream=True):
        seen.append(one.sequence_number)
        if one.type == "response.output_text.delta":
            break
    assert (await openai.responses.retrieve(started.id)).status == "in_progress"
    with pytest.raises(ConflictError):
        await openai.responses.delete(started.id)
    cancelled = await openai.responses.cancel(started.id)
    assert cancelled.status == "cancelled"
    assert (await openai.responses.cancel(started.id)).status == "cancelled"
    assert [one.type for one in await events_of(await openai.responses.retrieve(started.id, stream=True))][-1] == (
        "response.incomplete"
    )
    await openai.responses.delete(started.id)
    async with asyncio.timeout(90):  # Temporal deletes by and by
        while (await stack.http.get(f"/v1/responses/{started.id}")).status_code != 404:
            await asyncio.sleep(0.5)


async def test_a_cut_stream_is_resumed_without_loss(openai: AsyncOpenAI) -> None:
    say = [f"{number} " for number in range(40)]
    stream = await openai.responses.create(
        model="teller", input="x", stream=True, background=True, extra_body=asks(say=say, pause=0.03)
    )
    text, response_id, last = "", "", 0
    async for one in stream:
        last = one.sequence_number
        if one.type == "response.created":
            response_id = one.response.id
        if one.type == "response.output_text.delta":
            text += one.delta
            if one.delta == "10 ":
                break
    await stream.close()
    async for one in await openai.responses.retrieve(response_id, stream=True, starting_after=last):
        assert one.sequence_number > last
        last = one.sequence_number
        if one.type == "response.output_text.delta":
            text += one.delta
    assert text == "".join(say)
    assert one.type == "response.completed"
    assert one.response.output_text == text


async def test_a_reset_closes_the_item_and_opens_the_next(openai: AsyncOpenAI) -> None:
    async with openai.responses.stream(model="whole_at_last", input="x") as stream:
        events = [one async for one in stream]
        final = await stream.get_final_response()
    assert final.output_text == "the whole"
    items = [one for one in events if one.type in ("response.output_item.added", "response.output_item.done")]
    assert [(one.output_index, one.item.status) for one in items] == [
        (0, "in_progress"),
        (0, "incomplete"),
        (1, "in_progress"),
        (1, "completed"),
    ]
    numbers = [one.sequence_number for one in events]
    assert numbers == sorted(set(numbers))
    after = items[2].sequence_number
    rest = await events_of(await openai.responses.retrieve(final.id, stream=True, starting_after=after))
    assert [one.sequence_number for one in rest] == [number for number in numbers if number > after]
    assert {one.output_index for one in rest if hasattr(one, "output_index")} == {1}


async def test_a_response_that_is_not_stored_is_not_read_again(stack: Stack, openai: AsyncOpenAI) -> None:
    found = await openai.responses.create(model="echo", input="x", store=False)
    assert (found.status, found.store) == ("completed", False)  # type: ignore[attr-defined]
    with pytest.raises(NotFoundError):
        await openai.responses.retrieve(found.id)
    with pytest.raises(NotFoundError):
        [one async for one in openai.responses.input_items.list(found.id)]
    with pytest.raises(BadRequestError, match="no such response"):
        await openai.responses.create(model="echo", input="y", previous_response_id=found.id)
    with pytest.raises(BadRequestError, match="must be true with background"):
        await openai.responses.create(model="echo", input="x", store=False, background=True)
    events = await events_of(await openai.responses.create(model="echo", input="x", store=False, stream=True))
    assert events[-1].response.store is False
    assert (await stack.run(found.id.removeprefix("resp_")))["status"] == "completed", "the run is kept"


async def test_failed_runs_are_errors_and_failed_responses(openai: AsyncOpenAI) -> None:
    with pytest.raises(InternalServerError):
        await openai.responses.create(model="hopeless", input="x")
    events = await events_of(await openai.responses.create(model="hopeless", input="x", stream=True))
    assert events[-1].type == "response.failed"
    assert events[-1].response.error.message
    assert events[-1].response.error.code == "invalid_prompt", "Codex gives up; it would repeat a server_error"
    started = await openai.responses.create(model="hopeless", input="x", background=True)
    async with asyncio.timeout(20):
        while (found := await openai.responses.retrieve(started.id)).status != "failed":
            await asyncio.sleep(0.1)
    assert found.error is not None
    assert found.model_extra["sevenfold"]["error"]["code"]  # type: ignore[index]


async def test_a_conversation_continues(openai: AsyncOpenAI) -> None:
    first = await openai.responses.create(model="clerk", input="my name is Ada")
    second = await openai.responses.create(
        model="clerk",
        previous_response_id=first.id,
        input=[{"role": "user", "content": [{"type": "input_text", "text": "what is my name"}]}],
    )
    third = await openai.responses.create(model="clerk", previous_response_id=second.id, input="thanks")
    assert third.previous_response_id == second.id
    items = [one async for one in openai.responses.input_items.list(third.id, order="asc", limit=2)]
    assert [one.role for one in items] == ["user", "assistant", "user", "assistant", "user"]  # type: ignore[union-attr]
    assert items[0].content[0].text == "my name is Ada"  # type: ignore[union-attr]
    assert items[1].content[0].text == first.output_text  # type: ignore[union-attr]
    with pytest.raises(BadRequestError) as refused:
        await openai.responses.create(model="clerk", previous_response_id="resp_qry_none", input="x")
    assert refused.value.param == "previous_response_id"
    with pytest.raises(BadRequestError, match="1,000,000"):
        await openai.responses.create(model="clerk", previous_response_id=third.id, input="x" * 1_000_000)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": [{"type": "function_call_output", "output": "x"}]}, "input"),
        ({"input": "x", "conversation": "conv_1"}, "conversation"),
        ({"input": "x", "prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"input": 5}, "input"),
    ],
)
async def test_bad_requests_get_400_with_the_reason(body: dict[str, Any], param: str, stack: Stack) -> None:
    answer = await stack.http.post("/v1/responses", json={"model": "echo", **body})
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"].startswith(param)


async def test_questions_are_incomplete_and_the_response_goes_on(tmp_path: Path) -> None:
    async with running_stack(tmp_path, more_config=ASKER) as stack, openai_client(stack) as openai:
        body = asks(log=str(tmp_path / "log"))
        events = await events_of(
            await openai.responses.create(model="asker", input="x", stream=True, extra_body=body)
        )
        asked = events[-1]
        assert asked.type == "response.incomplete"
        assert asked.response.incomplete_details.reason == "input_required"
        run_id = asked.response.id.removeprefix("resp_")
        (request,) = asked.response.model_extra["sevenfold"]["requests"]
        polled = await openai.responses.retrieve(asked.response.id)
        assert (polled.status, polled.incomplete_details.reason) == (  # type: ignore[union-attr]
            "incomplete",
            "input_required",
        )
        given = {"responses": {request["id"]: QuestionResponse(action="accept", content=True).model_dump()}}
        answer = await stack.http.post(f"/api/agent/runs/{run_id}/responses", json=json.loads(json.dumps(given)))
        assert answer.status_code == 200, answer.text
        rest = await events_of(
            await openai.responses.retrieve(asked.response.id, stream=True, starting_after=asked.sequence_number)
        )
        assert rest[0].sequence_number > asked.sequence_number
        assert rest[-1].response.output_text == "thinking got True"
