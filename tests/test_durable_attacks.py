"""What durable agents do wrong, and what people and clients send them."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bench.server_sent_events import events as stream_events
from sevenfold.api.approvals.forms import FormError, read_fields
from sevenfold.contracts.agents.step_runner import StepOptions, StepStart, run_step
from sevenfold.contracts.agents.unrecorded import UnrecordedCall
from sevenfold.contracts.json.schema_cost import InvalidSchemaError
from sevenfold.contracts.json.schemas import check_content, check_schema
from tests.support.stack import Stack, running_stack
from tests.support.tenants import TenantKey, client_of, key_config

API = "/api/agent"
AGENTS = ("asker", "crossed", "leaver", "cleaner", "blocker", "texts")
CONFIG = "".join(
    f'[agents.{name}]\nkind = "python"\ntarget = "tests.support.durable_agents:{name}"\n'
    "circuit = {enabled = false}\n"
    for name in AGENTS
)


@pytest.fixture(scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    async with running_stack(tmp_path_factory.mktemp("attacked"), more_config=CONFIG) as running:
        yield running


async def start(stack: Stack, agent: str, **params: Any) -> str:
    body = {"task": "t", "agent": agent, "params": params, "timeout": 20}
    return str((await stack.http.post(f"{API}/tasks", json=body)).json()["taskId"])


async def answer_all(stack: Stack, run_id: str, content: Any = True) -> None:
    """Answers what the run asks, until it has ended."""
    while (run := await stack.run_until(run_id, "input_required", "completed", "failed"))[
        "status"
    ] == "input_required":
        for request in run["requests"]:  # type: ignore[attr-defined]
            given = content(request["message"]) if callable(content) else content
            body = {"responses": {request["id"]: {"action": "accept", "content": given}}}
            found = await stack.http.post(f"{API}/runs/{run_id}/responses", json=body)
            assert found.status_code in (200, 409), found.text


async def test_no_answer_goes_to_another_question(stack: Stack) -> None:
    run_id = await start(stack, "crossed")
    await answer_all(stack, run_id, lambda message: f"answer to {message}")
    run = await stack.run(run_id)
    assert run["result"]["data"] == {"A": "answer to Refund A?", "B": "answer to Refund B?"}  # type: ignore[index]


async def test_an_attempt_that_has_ended_executes_no_further_step(stack: Stack, tmp_path: Path) -> None:
    run_id = await start(stack, "leaver", log=str(tmp_path / "log"))
    run = await stack.run_until(run_id, "completed", "failed")
    assert run["status"] == "completed"
    executed = (tmp_path / "log").read_text().splitlines()
    assert executed == ["s0 in attempt 1", "s1 in attempt 1", *(f"s{n} in attempt 2" for n in range(1, 5))]
    response = str(run["result"]["response"])  # type: ignore[index]
    assert response == "s0 of attempt 1" + "".join(f"s{n} of attempt 2" for n in range(1, 5))


async def test_nothing_is_executed_between_a_question_and_its_answer(stack: Stack) -> None:
    run_id = await start(stack, "cleaner")
    run = await stack.run_until(run_id, "input_required")
    assert not run["steps"]
    await answer_all(stack, run_id)
    run = await stack.run(run_id)
    assert [one["name"] for one in run["steps"]] == ["pay", "release"]  # type: ignore[attr-defined]


async def test_a_step_cannot_ask(stack: Stack) -> None:
    run = await stack.run_until(await start(stack, "cleaner", inside=True), "failed")
    assert "A step cannot ask" in run["error"]["detail"]  # type: ignore[index]


async def test_a_coroutine_that_calls_step_sync_gets_an_error(stack: Stack) -> None:
    run = await stack.run_until(await start(stack, "blocker"), "failed", seconds=40)
    assert run["error"]["code"] == "AgentFailed"  # type: ignore[index]
    assert (await stack.query("still there", agent="echo")).status_code == 200


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"turns": ["one ", "two ", "three"]}, "one two three"),
        ({"turns": ["", ""], "response": "the response"}, "the response"),
        ({"turns": ["one ", ""], "once": True}, ""),
    ],
)
async def test_readers_have_the_text_of_the_result(params: dict[str, Any], text: str, stack: Stack) -> None:
    body = {"query": "x", "agent": "texts", "params": params}
    async with stack.http.stream("POST", f"{API}/stream", json=body) as answer:
        run_id = answer.headers["x-stream-id"]
        readers = [asyncio.create_task(read_text(stack, run_id)) for _ in range(3)]
        await asyncio.sleep(0.1)
        await answer_all(stack, run_id)
    run = await stack.run(run_id)
    assert run["result"]["response"] == text  # type: ignore[index]
    assert await asyncio.gather(*readers, read_text(stack, run_id)) == [text] * 4


async def read_text(stack: Stack, run_id: str) -> str:
    """The text that a reader has at the end."""
    text = ""
    async with stack.http.stream("GET", f"{API}/runs/{run_id}/stream") as answer:
        async for one in stream_events(answer):
            text = "" if one.data.get("reset") else text + str(one.data.get("chunk", ""))
    return text


@pytest.mark.parametrize("name", ["exponential", "recursive", "patterns", "remote"])
def test_schemas_that_could_take_long_are_refused(name: str) -> None:
    defs: dict[str, Any] = {f"a{n}": {"anyOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(24)}
    schemas: dict[str, Any] = {
        "exponential": {"$defs": {**defs, "a24": {"type": "string"}}, "$ref": "#/$defs/a0"},
        "recursive": {"properties": {"more": {"$ref": "#"}}},
        "patterns": {"properties": {f"p{n}": {"pattern": "x"} for n in range(100)}},
        "remote": {"$ref": "http://127.0.0.1:1/schema"},
    }
    with pytest.raises(InvalidSchemaError):
        check_schema(schemas[name])


def test_a_large_wrong_answer_has_one_error() -> None:
    schema: Any = {"items": {"enum": [f"value {n}" for n in range(3_000)]}}
    check_schema(schema)
    assert len(check_content(schema, ["wrong"] * 15_000, "/content")) == 1


async def test_steps_recorded_at_once_have_one_result(stack: Stack, tmp_path: Path) -> None:
    run_id = await start(stack, "asker", log=str(tmp_path / "log"))
    await stack.run_until(run_id, "input_required")
    path = f"{API}/runs/{run_id}/steps"
    answers = await asyncio.gather(*(stack.http.post(path, json={"name": "x", "result": n}) for n in range(8)))
    assert len({one.json()["result"] for one in answers}) == 1
    assert sum(not one.json()["replayed"] for one in answers) == 1
    for odd in (
        {"name": "a\nb"},
        {"name": "a#2"},
        {"name": "a", "result": "x" * 2_100_000},
        {"name": "a", "result": 1, "failure": {"type": "E", "message": "m"}},
        {"name": "a", "failure": {"type": "E" * 1_000, "message": "m"}},
    ):
        assert (await stack.http.post(path, json=odd)).status_code == 422, odd


async def test_keys_that_only_read_get_no_links(tmp_path: Path) -> None:
    reader, writer = TenantKey("acme", ("runs:read",)), TenantKey("acme")
    config = CONFIG + key_config(reader, writer)
    key = "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE="
    async with (
        running_stack(tmp_path, more_config=config, secret_key=key) as stack,
        client_of(stack, writer) as owner,
        client_of(stack, reader) as guest,
    ):
        body = {"task": "t", "agent": "asker", "params": {"log": str(tmp_path / "log")}}
        run_id = (await owner.post(f"{API}/tasks", json=body)).json()["taskId"]
        async with asyncio.timeout(20):
            while (await owner.get(f"{API}/runs/{run_id}")).json()["status"] != "input_required":
                await asyncio.sleep(0.1)
        for path in (f"/runs/{run_id}", f"/tasks/{run_id}"):
            assert (await owner.get(f"{API}{path}")).json()["requests"][0]["url"]
            assert not (await guest.get(f"{API}{path}")).json()["requests"][0].get("url")
        async with asyncio.timeout(20):
            while not (listed := (await guest.get(f"{API}/approvals")).json()["items"]):
                await asyncio.sleep(0.1)
        assert listed[0]["requests"][0]["url"] is None


@pytest.mark.parametrize("text", ["[" * 900 + "]" * 900, '"\\ud800"', "NaN", "[Infinity]", ""])
def test_forms_that_are_no_json_are_refused(text: str) -> None:
    schema = {"type": ["object", "array", "number", "string"]}
    with pytest.raises(FormError):
        read_fields(schema, {"json": text})


@pytest.mark.parametrize("moment", ["executes", "waits for its next try"])
async def test_a_step_that_is_cancelled_is_abandoned(moment: str) -> None:
    """Otherwise a question after it would wait for its end."""

    class Recorder(UnrecordedCall):
        abandoned = 0

        async def abandon_step(self, start: StepStart) -> None:
            self.abandoned += 1

    async def work() -> None:
        if moment == "executes":
            await asyncio.sleep(60)
        raise OSError("not yet")

    call = Recorder()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(run_step(call, "work", work, ((), {}), StepOptions(retries=9)), 0.1)
    assert call.abandoned == 1
