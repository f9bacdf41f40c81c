"""Agents that raise what is no `Exception`, or what nobody asked for: one failed attempt, and the worker lives."""

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.agents import CALLS
from tests.support.processes import until
from tests.support.stack import Stack, http_client, make_settings, running_stack, sevenfold, until_ready

# Each is asked for by `params.raises` of the agent `raiser`, see tests/support/raising_agents.py.
KINDS = (
    "SystemExit",
    "KeyboardInterrupt",
    "CancelledError",
    "GeneratorExit",
    "Odd",
    "StopIteration",
    "StopAsyncIteration",
    "ExceptionGroup",
    "BaseExceptionGroup",
    "unreadable",
    "circular",
    "long",
    "surrogates",
    "bare AgentError",
    "odd AgentError",
    "self-cancel",
)
AGENTS = ("raiser", "raising_stream", "raising_thread", "raising_task")

CONFIG = "\n".join(
    f'[agents.{name}]\nkind = "python"\ntarget = "tests.support.raising_agents:{name}"\ncircuit = {{enabled = false}}'
    for name in (*AGENTS, "raising_cleanup", "raising_callback", "odd_reply", "odd_events")
)


@pytest.fixture(scope="module")
async def raising(tmp_path_factory: pytest.TempPathFactory) -> Any:
    async with running_stack(tmp_path_factory.mktemp("raising"), more_config=CONFIG) as stack:
        yield stack


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize("kind", KINDS)
async def test_any_exception_of_an_agent_is_one_failed_attempt_and_is_retried(
    raising: Stack, agent: str, kind: str
) -> None:
    answer = await raising.query(agent=agent, params={"raises": kind, "attempts": 1})
    assert answer.status_code == 200, answer.text
    assert answer.json()["response"] == "attempt 2"


@pytest.mark.parametrize("kind", ["SystemExit", "CancelledError", "Odd"])
async def test_agent_that_always_raises_fails_with_its_error_code(raising: Stack, kind: str) -> None:
    answer = await raising.query(
        agent="raiser", params={"raises": kind, "attempts": 99}, headers={"Prefer": "wait=60"}
    )
    assert answer.status_code == 502
    problem = answer.json()
    assert problem["type"] == "/problems/agent-failed"
    assert problem["code"] == "AgentFailed"
    assert problem["attempts"] == 5
    assert "secret of the agent" not in answer.text
    run = await raising.run(problem["runId"])
    assert run["status"] == "failed"
    assert "secret of the agent" not in json.dumps(run)


async def test_temporal_shows_operators_the_agents_exception(raising: Stack) -> None:
    answer = await raising.query(agent="raiser", params={"raises": "Odd", "attempts": 99}, timeout=3)
    history = await raising.temporal.get_workflow_handle(f"default:{answer.json()['runId']}").fetch_history()
    assert "secret of the agent" in history.to_json()


@pytest.mark.parametrize("kind", ["CancelledError", "SystemExit", "Odd", "StopIteration"])
async def test_job_keeps_every_item_when_the_agent_raises(raising: Stack, kind: str) -> None:
    items = [{"number": number, "raises": kind if number == 5 else None} for number in range(12)]
    started = await raising.http.post(
        "/api/agent/jobs", json={"task": "work", "agent": "raiser", "data": {"items": items}, "concurrency": 4}
    )
    job_id = started.json()["jobId"]
    await raising.run_until(job_id, "completed", "failed", seconds=60)
    job = (await raising.http.get(f"/api/agent/jobs/{job_id}")).json()
    assert job["status"] == "completed"
    assert job["progress"] == {"completed": 11, "failed": 1, "total": 12, "percent": 100}
    lines = (await raising.http.get(f"/api/agent/jobs/{job_id}/results")).text.splitlines()
    assert [json.loads(line)["index"] for line in lines] == list(range(12))
    assert json.loads(lines[5])["error"]["code"] == "AgentFailed"
    assert json.loads(lines[5])["error"]["attempts"] == 3


async def test_failing_cleanup_keeps_the_reply(raising: Stack) -> None:
    for kind in ("SystemExit", "CancelledError", "Odd"):
        answer = await raising.query(agent="raising_cleanup", params={"raises": kind})
        assert answer.status_code == 200, answer.text
        assert answer.json()["response"] == "answered"
        assert CALLS[answer.json()["queryId"]] == 1


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("huge integer", "300 digits"),
        ("deep", "64 deep"),
        ("circular", "64 deep"),
        ("object", "JSON"),
        ("many", "200,000 values"),
        ("surrogate", "Unicode"),
        ("keys", "JSON"),
    ],
)
async def test_reply_that_json_cannot_represent_is_rejected_without_retry(
    raising: Stack, kind: str, reason: str
) -> None:
    answer = await raising.query(agent="odd_reply", params={"reply": kind})
    assert answer.status_code == 502, answer.text
    assert answer.json()["code"] == "AgentRejected"
    assert reason in answer.json()["detail"]
    items = ["a", kind, "c"]
    started = await raising.http.post(
        "/api/agent/jobs", json={"task": "work", "agent": "odd_reply", "data": {"items": items}}
    )
    job_id = started.json()["jobId"]
    assert (await raising.run_until(job_id, "completed", "failed"))["status"] == "completed"
    lines = (await raising.http.get(f"/api/agent/jobs/{job_id}/results")).text.splitlines()
    assert [json.loads(line)["status"] for line in lines] == ["completed", "failed", "completed"]


async def test_yielded_plain_values_are_read_like_return_values(raising: Stack) -> None:
    answer = await raising.query(agent="odd_events")
    assert answer.status_code == 200, answer.text
    assert answer.json()["response"] == "a b"


async def test_worker_survives_sys_exit_in_a_callback(tmp_path: Path) -> None:
    """asyncio raises `SystemExit` of a callback out of the event loop; no task is there to contain it."""
    settings = make_settings(tmp_path, more_config=CONFIG, grace_seconds=5, development=False)
    with sevenfold("dev", settings) as product:
        await until_ready(settings.port, process=product)
        async with http_client(settings.port) as http:
            for agent in ("raising_callback", "raiser", "raising_task"):
                params = {"raises": "SystemExit", "attempts": 1}
                answer = await http.post("/api/agent/query", json={"query": "hi", "agent": agent, "params": params})
                assert answer.status_code == 200, answer.text
            assert (await http.get("/health/ready")).status_code == 200
        product.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(product.process.wait, 20) == 0
        assert product.output().count("the process continues") == 1


async def test_module_that_exits_on_import_is_named_at_startup(tmp_path: Path) -> None:
    (tmp_path / "leaver.py").write_text("import sys\nsys.exit(3)\n")
    settings = make_settings(tmp_path, more_config='[agents.leaver]\nkind = "python"\ntarget = "leaver:agent"')
    with sevenfold("worker.py", settings) as product:
        assert await asyncio.to_thread(product.process.wait, 30) == 2
        assert "agent leaver: SystemExit: 3" in product.output()


async def operate(stack: Stack, command: str, activity_id: str, run_id: str, *options: str) -> None:
    """What an operator does in the Temporal UI, or by its CLI."""
    arguments = [str(Path(sys.executable).parent / "temporal"), "activity", command, "--activity-id", activity_id]
    arguments += ["--workflow-id", f"default:{run_id}", "--address", stack.server.address, *options]
    await asyncio.to_thread(subprocess.run, arguments, check=True, capture_output=True, timeout=20)


async def pending(stack: Stack, run_id: str) -> Any:
    description = await stack.temporal.get_workflow_handle(f"default:{run_id}").describe()
    return next(iter(description.raw_description.pending_activities), None)


async def test_paused_chunk_resumes_without_repeating_items(stack: Stack) -> None:
    body = {"task": "work", "agent": "careful", "params": {"seconds": 0.5}, "concurrency": 4}
    started = await stack.http.post("/api/agent/jobs", json={**body, "data": {"items": list(range(40))}})
    job_id = started.json()["jobId"]
    await until(lambda: _some_done(stack, job_id))
    await operate(stack, "pause", "chunk-0", job_id)
    await until(lambda: _waits(stack, job_id))
    done = (await stack.run(job_id))["progress"]
    await asyncio.sleep(1.5)
    run = await stack.run(job_id)
    assert run["status"] == "processing"
    assert run["progress"] == done, "nothing is done while it is paused"
    await operate(stack, "update-options", "chunk-0", job_id, "--heartbeat-timeout", "15s")
    await operate(stack, "unpause", "chunk-0", job_id)
    run = await stack.run_until(job_id, "completed", "failed", "cancelled", seconds=60)
    assert run["status"] == "completed"
    assert CALLS[job_id] <= 2 * (40 + 4), "it notes twice; only the items that were in flight are repeated"
    lines = (await stack.http.get(f"/api/agent/jobs/{job_id}/results")).text.splitlines()
    assert [json.loads(line)["index"] for line in lines] == list(range(40))


async def test_reset_chunk_resumes(stack: Stack) -> None:
    body = {"task": "work", "agent": "careful", "params": {"seconds": 0.5}, "concurrency": 4}
    started = await stack.http.post("/api/agent/jobs", json={**body, "data": {"items": list(range(20))}})
    job_id = started.json()["jobId"]
    await until(lambda: _some_done(stack, job_id))
    await operate(stack, "reset", "chunk-0", job_id)
    assert (await stack.run_until(job_id, "completed", "failed", "cancelled", seconds=60))["status"] == "completed"


@pytest.mark.parametrize("path", ["query", "tasks"])
async def test_paused_agent_call_costs_no_attempt(stack: Stack, path: str) -> None:
    body = {"query": "hi"} if path == "query" else {"task": "work"}
    started = await stack.http.post(
        f"/api/agent/{path}",
        json={**body, "agent": "careful", "params": {"seconds": 3}},
        headers={"Prefer": "respond-async"},
    )
    run_id = next(iter(started.json().values()))
    await until(lambda: pending(stack, run_id))
    for _ in range(3):
        activity_id = (await pending(stack, run_id)).activity_id
        await operate(stack, "pause", activity_id, run_id)
        await until(lambda: _waits(stack, run_id))
        run = await stack.run(run_id)
        assert run["status"] == "processing"
        assert "paused" in str(run["waiting"])
        await operate(stack, "unpause", activity_id, run_id)
        await until(lambda: _works(stack, run_id))
    run = await stack.run_until(run_id, "completed", "failed", "cancelled", seconds=60)
    assert run["status"] == "completed"
    assert run["attempt"] <= 2, "pauses are none of the agent's attempts; a call that was taken over may be lost once"


async def _some_done(stack: Stack, run_id: str) -> bool:
    progress: Any = (await stack.run(run_id))["progress"]
    return bool(progress and progress["percent"] > 0)


async def _waits(stack: Stack, run_id: str) -> bool:
    return (await stack.run(run_id))["waiting"] is not None


async def _works(stack: Stack, run_id: str) -> bool:
    found = await pending(stack, run_id)
    return found is None or found.state == 2
