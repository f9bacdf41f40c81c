"""The kind `workflow`: a run's agent is a child workflow, with its cancellation, progress, failures and deadline."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.worker import Worker

from tests.support.child_workflows import CLEANED_UP, Child
from tests.support.codec_keys import key_setting, new_key
from tests.support.events import event, published, subscribed, wait_until_settled
from tests.support.raw_store import clear_parts
from tests.support.stack import Stack, running_stack

CONFIG = """
[agents.child]
kind = "workflow"
workflow = "Child"
task_queue = "children"

[agents.deserted]
kind = "workflow"
workflow = "Child"
task_queue = "nobody polls this"
"""


@pytest.fixture(scope="module")
async def family(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    async with (
        running_stack(tmp_path_factory.mktemp("family"), more_config=CONFIG) as stack,
        Worker(stack.temporal, task_queue="children", workflows=[Child]),
    ):
        yield stack


async def ask(stack: Stack, do: str, *, wait: int | None = None, **body: Any) -> httpx.Response:
    headers = {"Prefer": f"wait={wait}"} if wait else {}
    params = {"do": do, **body.pop("params", {})}
    return await stack.query(agent="child", params=params, headers=headers, **body)


async def test_child_workflow_reply_is_the_result(family: Stack) -> None:
    answer = (await ask(family, "reply")).json()
    assert (answer["response"], answer["confidence"]) == ("attempt 1", 0.5)
    assert (await ask(family, "text")).json()["response"] == "plain"


async def test_child_workflow_receives_the_request(family: Stack) -> None:
    answer = (await ask(family, "echo", context={"customerId": "1"}, metadata={"a": 1}, timeout=20)).json()
    data = answer["data"]
    assert data["runId"] == answer["queryId"]
    assert data["query"] == "hi"
    assert data["context"] == {"customerId": "1"}
    assert data["metadata"] == {"a": 1}
    left = (datetime.fromisoformat(data["deadline"]) - datetime.now(UTC)).total_seconds()
    assert 0 < left <= data["timeout"] <= 20


async def test_agent_workflow_is_a_child_of_the_run(family: Stack) -> None:
    answer = (await ask(family, "reply")).json()
    child = await family.temporal.get_workflow_handle(f"default:{answer['queryId']}/1").describe()
    assert child.parent_id == f"default:{answer['queryId']}"
    assert child.workflow_type == "Child"
    listed = (await family.http.get("/api/agent/runs?limit=100")).json()["items"]
    assert all("/" not in run["id"] for run in listed), "the child is no run of its own"


async def until_at_work(stack: Stack, run_id: str) -> dict[str, Any]:
    """The run, once its child has reported progress."""
    async with asyncio.timeout(15):
        while (run := await stack.run(run_id))["progress"] is None:
            await asyncio.sleep(0.05)
    return run


async def until_cleaned_up(run_id: str) -> None:
    async with asyncio.timeout(10):
        while run_id not in CLEANED_UP:
            await asyncio.sleep(0.05)


async def test_child_workflow_progress_and_cancellation(family: Stack) -> None:
    run_id = (await ask(family, "wait", wait=1)).json()["queryId"]
    run = await until_at_work(family, run_id)
    assert run["status"] == "processing"
    assert run["progress"] == {"percent": 40, "note": "half of it"}
    assert (await family.http.post(f"/api/agent/runs/{run_id}/cancel")).status_code == 202
    run = await family.run_until(run_id, "cancelled")
    assert run["progress"] is None
    await until_cleaned_up(run_id)
    handle = family.temporal.get_workflow_handle(f"default:{run_id}/1")
    async with asyncio.timeout(10):
        while (status := (await handle.describe()).status) is WorkflowExecutionStatus.RUNNING:
            await asyncio.sleep(0.05)
    assert status is WorkflowExecutionStatus.CANCELED


async def test_cancel_signal_reaches_the_child_workflow(family: Stack) -> None:
    run_id = (await ask(family, "wait", wait=1)).json()["queryId"]
    await until_at_work(family, run_id)
    await family.temporal.get_workflow_handle(f"default:{run_id}").signal("cancel")
    await family.run_until(run_id, "cancelled")
    await until_cleaned_up(run_id)


async def test_child_workflow_without_workers_can_be_cancelled(family: Stack) -> None:
    answer = await family.query(agent="deserted", headers={"Prefer": "wait=1"})
    assert answer.status_code == 202
    run_id = answer.json()["queryId"]
    await family.http.post(f"/api/agent/runs/{run_id}/cancel")
    await family.run_until(run_id, "cancelled", seconds=20)


async def test_child_workflow_ends_at_the_deadline(family: Stack) -> None:
    answer = await ask(family, "wait", timeout=4)
    assert answer.status_code == 504, answer.text
    await until_cleaned_up(answer.json()["runId"])


@pytest.mark.parametrize(
    ("do", "status", "detail"),
    [
        ("refuse", 502, "Not this one."),
        ("fail for good", 502, "Broken."),
        ("nonsense", 502, "list"),
    ],
)
async def test_permanent_child_workflow_failure_is_not_retried(
    family: Stack, do: str, status: int, detail: str
) -> None:
    answer = await ask(family, do)
    assert answer.status_code == status
    assert answer.json()["code"] == "AgentRejected"
    assert detail in answer.json()["detail"]
    assert answer.json()["attempts"] == 1


async def test_transient_child_workflow_failure_is_retried(family: Stack) -> None:
    answer = (await ask(family, "fail twice")).json()
    assert answer["response"] == "attempt 3"
    assert (await family.run(answer["queryId"]))["attempt"] == 3


async def test_child_workflow_that_always_fails_exhausts_its_attempts(family: Stack) -> None:
    answer = await ask(family, "fail", timeout=5)
    assert answer.status_code == 504
    assert "Own" in answer.json()["detail"]
    assert "internal-host" not in answer.text


async def test_terminated_child_workflow_fails_the_run(family: Stack) -> None:
    run_id = (await ask(family, "wait", wait=1)).json()["queryId"]
    await until_at_work(family, run_id)
    await family.temporal.get_workflow_handle(f"default:{run_id}/1").terminate("by hand")
    run = await family.run_until(run_id, "failed")
    assert dict(run["error"])["code"] == "Terminated"  # type: ignore[call-overload]


async def test_child_workflow_agent_works_with_every_pattern(family: Stack) -> None:
    async def post(path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = await family.http.post(
            f"/api/agent/{path}", json={"agent": "child", "params": {"do": "echo"}, **body}
        )
        assert answer.status_code in (200, 202), answer.text
        return dict(answer.json())

    task_id = (await post("tasks", {"task": "work"}))["taskId"]
    assert (await family.run_until(task_id, "completed"))["pattern"] == "polling"
    job_id = (await post("jobs", {"task": "work", "data": {"items": [1, 2, 3]}}))["jobId"]
    await family.run_until(job_id, "completed")
    job = (await family.http.get(f"/api/agent/jobs/{job_id}")).json()
    assert job["result"]["data"]["items"] == [1, 2, 3], "it takes the list whole"
    to = {"webhookUrl": "http://127.0.0.1:9/", "webhookSecret": "x" * 24}
    document_id = (await post("analyze", {"document": "Some text.", **to}))["taskId"]
    run = await family.run_until(document_id, "completed")
    assert "Some text." in str(run["result"])
    assert (await post("hybrid", {"query": "hi"}))["response"] == "seen"
    body = {"query": "hi", "agent": "child", "params": {"do": "text"}}
    async with family.http.stream("POST", "/api/agent/stream", json=body) as answer:
        text = (await answer.aread()).decode()
    assert '"chunk":"plain"' in text
    assert "event: done" in text
    await subscribed(family, "to-child", "t.child", agent="child", publishes="t.child.done", params={"do": "reply"})
    (reaction,) = (await wait_until_settled(family.http, await published(family.http, event("t.child"))))["reactions"]
    assert reaction["status"] == "completed"
    assert reaction["published"][0]["type"] == "t.child.done"


async def test_payloads_to_children_are_clear_unless_their_workers_have_the_keys(tmp_path: Path) -> None:
    """A foreign worker without keys runs the clear child. The run's own payloads are encrypted in both cases."""
    config = CONFIG + '[agents.sealed]\nkind = "workflow"\nworkflow = "Child"\ntask_queue = "sealed"\ncodec = true\n'
    async with running_stack(tmp_path, more_config=config, codec_keys=key_setting(new_key("one"))) as stack:
        foreign = await Client.connect(stack.server.address)
        async with (
            Worker(foreign, task_queue="children", workflows=[Child]),
            Worker(stack.temporal, task_queue="sealed", workflows=[Child]),
        ):
            for agent, child_id in (("child", "1"), ("sealed", "codec/1")):
                for do, status in (("echo", 200), ("fail for good", 502)):
                    answer = await stack.query("planted", agent=agent, params={"do": do})
                    assert answer.status_code == status, answer.text
                    run_id = answer.json().get("queryId") or answer.json()["runId"]
                    assert (await stack.run(run_id))["status"] in ("completed", "failed")
                    child = await clear_parts_in(stack, f"default:{run_id}/{child_id}")
                    assert bool(child) == (agent == "child")
                    run = await clear_parts_in(stack, f"default:{run_id}")
                    assert all("child_workflow_execution" in part for part in run)
                    assert bool(run) == (agent == "child")
            run_id = (await ask(stack, "wait", wait=1, params={"seconds": 3})).json()["queryId"]
            assert (await until_at_work(stack, run_id))["progress"] == {"percent": 40, "note": "half of it"}
            assert (await stack.run_until(run_id, "completed"))["result"]["response"] == "waited"  # type: ignore[index]


async def clear_parts_in(stack: Stack, workflow_id: str) -> list[str]:
    """What is clear in a history, as Temporal has it."""
    return [
        part
        for event in (await stack.temporal.get_workflow_handle(workflow_id).fetch_history()).events
        for part in clear_parts(event)
    ]


async def test_child_workflow_asks_people(family: Stack) -> None:
    """The run's timeout rests meanwhile, and the server has none for the child."""
    answer = await ask(family, "ask", timeout=3, wait=30)
    assert (answer.status_code, answer.json()["status"]) == (202, "input_required")
    run_id = answer.json()["queryId"]
    assert [one["id"] for one in answer.json()["requests"]] == ["may-i"]
    await asyncio.sleep(3)
    given = {"responses": {"may-i": {"action": "accept", "content": True}}}
    assert (await family.http.post(f"/api/agent/runs/{run_id}/responses", json=given)).status_code == 200
    run = await family.run_until(run_id, "completed", "failed")
    assert run["result"]["data"]["answer"] == {"id": "may-i", "action": "accept", "content": True}  # type: ignore[index]


async def test_child_workflow_that_asks_is_cancelled(family: Stack) -> None:
    answer = await ask(family, "ask", wait=30)
    run_id = answer.json()["queryId"]
    await family.http.post(f"/api/agent/runs/{run_id}/cancel")
    await family.run_until(run_id, "cancelled")
    child = family.temporal.get_workflow_handle(f"default:{run_id}/1")
    async with asyncio.timeout(20):
        while (await child.describe()).status is not WorkflowExecutionStatus.CANCELED:
            await asyncio.sleep(0.2)
