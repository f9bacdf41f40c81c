"""Durable agents behind HTTP: the steps and answers in their requests, and the address where they record steps."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

from tests.support.receivers import running_app
from tests.support.stack import Stack, running_stack

API = "/api/agent"


class Agent:
    """Answers as the tests ask, and keeps what it got."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.app = FastAPI()
        self.app.post("/run")(self.run)

    async def run(self, request: Request) -> Any:
        asked = await request.json()
        self.asked.append(asked)
        match asked["params"].get("do"):
            case "fails once" if asked["attempt"] == 1:
                return StreamingResponse(iter(['{"error": {"status": 503}}\n']), media_type="application/x-ndjson")
            case "asks" if not asked["responses"]:
                return {"inputRequired": [{"id": "a", "message": "A?", "responseSchema": {"type": "integer"}}]}
            case "asks in a stream" if not asked["responses"]:
                lines = ['{"text": "well "}\n', '{"inputRequired": [{"id": "a", "message": "A?"}]}\n']
                return StreamingResponse(iter(lines), media_type="application/x-ndjson")
            case "asks for ever":
                return {"inputRequired": [{"id": "a", "message": "A?"}]}
            case "odd":
                return {"inputRequired": asked["params"]["questions"]}
            case "waits":
                await asyncio.sleep(60)
        return {"response": "done", "data": {"responses": asked["responses"], "turn": asked["turn"]}}


@pytest.fixture(scope="module")
async def remote(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Stack, Agent]]:
    agent = Agent()
    async with running_app(agent.app) as address:
        config = f'[agents.remote]\nkind = "http"\nurl = "{address}/run"\ncircuit = {{ enabled = false }}\n'
        async with running_stack(tmp_path_factory.mktemp("remote"), more_config=config) as stack:
            yield stack, agent


async def start(stack: Stack, **params: Any) -> str:
    body = {"task": "t", "agent": "remote", "params": params}
    return str((await stack.http.post(f"{API}/tasks", json=body)).json()["taskId"])


def requests_of(agent: Agent, run_id: str) -> list[dict[str, Any]]:
    return [one for one in agent.asked if one["runId"] == run_id]


async def test_a_recorded_step_is_in_the_next_request(remote: tuple[Stack, Agent]) -> None:
    stack, agent = remote
    run_id = await start(stack, do="waits")
    async with asyncio.timeout(20):
        while not requests_of(agent, run_id):
            await asyncio.sleep(0.05)
    (asked,) = requests_of(agent, run_id)
    assert (asked["steps"], asked["responses"], asked["turn"]) == ([], {}, 1)
    async with httpx.AsyncClient() as http:
        step = {"name": "search", "key": "a", "result": {"hits": 3}}
        first = (await http.post(asked["stepsUrl"], json=step)).json()
        assert (first["key"], first["result"], first["replayed"]) == ("search[a]", {"hits": 3}, False)
        again = (await http.post(asked["stepsUrl"], json={**step, "result": "other"})).json()
        assert (again["result"], again["replayed"]) == ({"hits": 3}, True), "the earlier result counts"
        for odd in ({}, {"name": ""}, {"name": "a", "result": 1, "more": 2}, {"name": "a" * 300}):
            assert (await http.post(asked["stepsUrl"], json=odd)).status_code == 422, odd
        other = asked["stepsUrl"].replace(run_id, "task_" + "a" * 26)
        assert (await http.post(other, json=step)).status_code == 403, "the token is for this run alone"
        plain = asked["stepsUrl"].replace("/steps?", "/cancel?")
        assert (await http.post(plain)).status_code == 403, "and for nothing else"
    run = (await stack.http.get(f"{API}/runs/{run_id}")).json()
    assert [one["key"] for one in run["steps"]] == ["search[a]"]
    await stack.http.post(f"{API}/runs/{run_id}/cancel")
    await stack.run_until(run_id, "cancelled")
    async with httpx.AsyncClient() as http:
        late = await http.post(asked["stepsUrl"], json={"name": "late", "result": 1})
    assert (late.status_code, late.json()["type"]) == (409, "/problems/run-ended")


async def test_a_second_attempt_gets_the_steps_of_the_first(remote: tuple[Stack, Agent]) -> None:
    stack, agent = remote
    run_id = await start(stack, do="fails once")
    async with asyncio.timeout(20):
        while not requests_of(agent, run_id):
            await asyncio.sleep(0.01)
    async with httpx.AsyncClient() as http:
        url = requests_of(agent, run_id)[0]["stepsUrl"]
        assert (await http.post(url, json={"name": "pay", "result": 1})).status_code == 200
    await stack.run_until(run_id, "completed")
    second = requests_of(agent, run_id)[1]
    assert (second["attempt"], [(one["key"], one["result"]) for one in second["steps"]]) == (2, [("pay", 1)])


@pytest.mark.parametrize("do", ["asks", "asks in a stream"])
async def test_an_agent_that_asks_gets_the_answer_in_its_next_request(do: str, remote: tuple[Stack, Agent]) -> None:
    stack, _ = remote
    run_id = await start(stack, do=do)
    await stack.run_until(run_id, "input_required")
    content = 7 if do == "asks" else True
    given = {"responses": {"a": {"action": "accept", "content": content}}}
    assert (await stack.http.post(f"{API}/runs/{run_id}/responses", json=given)).status_code == 200
    run = await stack.run_until(run_id, "completed", "failed")
    expected = {"responses": {"a": {"action": "accept", "content": content}}, "turn": 2}
    assert run["result"]["data"] == expected  # type: ignore[index]


async def test_an_agent_that_asks_again_is_stopped(remote: tuple[Stack, Agent]) -> None:
    stack, _ = remote
    run_id = await start(stack, do="asks for ever")
    await stack.run_until(run_id, "input_required")
    given = {"responses": {"a": {"action": "accept", "content": True}}}
    await stack.http.post(f"{API}/runs/{run_id}/responses", json=given)
    run = await stack.run_until(run_id, "failed")
    assert "asks again" in run["error"]["detail"]  # type: ignore[index]


@pytest.mark.parametrize(
    "questions",
    [
        [],
        "x",
        [{"id": "a"}],
        [{"message": "no id"}],
        [{"id": "a b", "message": "x"}],
        [{"id": "a", "message": "x", "responseSchema": {"type": "nothing"}}],
        [{"id": "a", "message": "x", "responseSchema": {"$ref": "https://example.com/schema"}}],
        [{"id": "a", "message": "x", "expiresAt": "tomorrow"}],
        [{"id": "a", "message": "x", "expiresAt": "2000-01-01T00:00:00Z"}],
        [{"id": f"q{n}", "message": "x"} for n in range(30)],
    ],
)
async def test_odd_questions_are_refused(questions: Any, remote: tuple[Stack, Agent]) -> None:
    stack, _ = remote
    run_id = await start(stack, do="odd", questions=questions)
    run = await stack.run_until(run_id, "failed")
    assert run["error"]["code"] == "AgentRejected"  # type: ignore[index]
