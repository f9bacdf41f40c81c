"""Scenarios of durable agents: steps and questions, in the patterns' workflows."""

import tempfile
from pathlib import Path
from typing import Any

from tests.support.events import event, published, subscribed
from tests.support.processes import until
from tests.support.stack import Stack

API = "/api/agent"

AGENTS = "".join(
    f'[agents.{name}]\nkind = "python"\ntarget = "tests.support.durable_agents:{name}"\n'
    for name in ("shopper", "asker")
)


def _params(**more: object) -> dict[str, object]:
    return {"log": str(Path(tempfile.mkdtemp()) / "log"), **more}


async def _task(stack: Stack, agent: str, until_status: str, **params: object) -> str:
    body = {"task": "t", "agent": agent, "params": _params(**params)}
    run_id = str((await stack.http.post(f"{API}/tasks", json=body)).json()["taskId"])
    await stack.run_until(run_id, until_status)
    return run_id


async def _answer(stack: Stack, run_id: str, content: Any = True) -> None:
    await stack.run_until(run_id, "input_required")
    given = {"responses": {"may-i": {"action": "accept", "content": content}}}
    answered = await stack.http.post(f"{API}/runs/{run_id}/responses", json=given)
    assert answered.status_code == 200, answered.text


async def _steps(stack: Stack) -> str:
    return await _task(stack, "shopper", "completed", failures=1)


async def _asked_synchronously(stack: Stack) -> str:
    body = {"query": "x", "agent": "asker", "params": _params()}
    run_id = str((await stack.http.post(f"{API}/query", json=body)).json()["queryId"])
    await _answer(stack, run_id)
    await stack.run_until(run_id, "completed")
    return run_id


async def _asked_in_a_stream(stack: Stack) -> str:
    body = {"query": "x", "agent": "asker", "params": _params()}
    async with stack.http.stream("POST", f"{API}/stream", json=body) as answer:
        run_id = answer.headers["x-stream-id"]
        await _answer(stack, run_id)
        async for _ in answer.aiter_lines():
            pass
    return run_id


async def _asked_by_a_job(stack: Stack) -> str:
    body = {"task": "t", "agent": "asker", "params": _params()}
    run_id = str((await stack.http.post(f"{API}/jobs", json=body)).json()["jobId"])
    await _answer(stack, run_id)
    await stack.run_until(run_id, "completed")
    return run_id


async def _asked_by_a_reaction(stack: Stack) -> str:
    await subscribed(stack, "asks", "t.asks", "asker", params=_params())
    event_id = await published(stack.http, event("t.asks"))

    async def reactions() -> list[dict[str, Any]]:
        return list((await stack.http.get(f"{API}/events/{event_id}")).json()["reactions"])

    await until(lambda: reactions(), 20)
    run_id = str((await reactions())[0]["id"])
    await _answer(stack, run_id)
    await stack.run_until(run_id, "completed")
    return run_id


async def _expired(stack: Stack) -> str:
    return await _task(stack, "asker", "completed", expires=1.5)


async def _cancelled(stack: Stack) -> str:
    run_id = await _task(stack, "asker", "input_required")
    await stack.http.post(f"{API}/runs/{run_id}/cancel")
    await stack.run_until(run_id, "cancelled")
    return run_id


async def _asked_by_a_child(stack: Stack) -> str:
    body = {"task": "t", "agent": "child", "params": {"do": "ask"}}
    run_id = str((await stack.http.post(f"{API}/tasks", json=body)).json()["taskId"])
    await _answer(stack, run_id)
    await stack.run_until(run_id, "completed")
    return run_id


SCENARIOS = {
    "durable_steps": _steps,
    "asked_synchronously": _asked_synchronously,
    "asked_in_a_stream": _asked_in_a_stream,
    "asked_by_a_job": _asked_by_a_job,
    "asked_by_a_reaction": _asked_by_a_reaction,
    "asked_by_a_child": _asked_by_a_child,
    "asked_and_expired": _expired,
    "asked_and_cancelled": _cancelled,
}
