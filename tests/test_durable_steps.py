"""Steps of durable agents: executed once per run, whatever happens to the agent, its worker or its connection."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from sevenfold.contracts.agents.steps import STEP_SIGNAL
from tests.support.stack import Stack, running_stack

API = "/api/agent"
AGENTS = ("shopper", "counter", "plain", "changed", "troubled")

CONFIG = "".join(
    f'[agents.{name}]\nkind = "python"\ntarget = "tests.support.durable_agents:{name}"\n'
    "circuit = { enabled = false }\n"
    for name in AGENTS
) + "".join(
    f'[agents.isolated-{name}]\nkind = "python"\ntarget = "tests.support.durable_agents:{name}"\n'
    'isolation = "process"\ncircuit = { enabled = false }\n'
    for name in AGENTS
)


@pytest.fixture(scope="module")
async def durable(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    directory = tmp_path_factory.mktemp("durable")
    (directory / "tests").symlink_to(Path(__file__).parent)
    async with running_stack(directory, more_config=CONFIG) as stack:
        yield stack


def lines(log: Path) -> list[str]:
    return log.read_text().splitlines() if log.exists() else []


async def finished(stack: Stack, agent: str, log: Path, **params: Any) -> dict[str, Any]:
    body = {"task": "t", "agent": agent, "params": {"log": str(log), **params}}
    run_id = (await stack.http.post(f"{API}/tasks", json=body)).json()["taskId"]
    await stack.run_until(run_id, "completed", "failed", seconds=90)
    return dict((await stack.http.get(f"{API}/runs/{run_id}")).json())


@pytest.mark.parametrize("agent", ["shopper", "isolated-shopper"])
async def test_a_retried_agent_repeats_no_step(agent: str, durable: Stack, tmp_path: Path) -> None:
    log = tmp_path / "log"
    answered = await durable.http.post(
        f"{API}/query", json={"query": "shoes", "agent": agent, "params": {"log": str(log), "failures": 2}}
    )
    assert answered.status_code == 200, answered.text
    data = answered.json()["data"]
    assert data["attempt"] == 3
    assert data["found"] == {"hits": ["shoes", 1]}
    assert Counter(lines(log)) == Counter(["search shoes", "pay 12", *(f"search box {n}" for n in range(3))])
    run = (await durable.http.get(f"{API}/runs/{answered.json()['queryId']}")).json()
    assert [(one["name"], one["key"], one["status"], one["attempt"]) for one in run["steps"]][:2] == [
        ("search", "search", "completed", 1),
        ("pay", "pay", "completed", 1),
    ]
    assert {one["key"] for one in run["steps"][2:]} == {f"ship[{n}]" for n in range(3)}
    assert all(one["attempt"] == 3 for one in run["steps"][2:])
    assert data["key"].startswith(answered.json()["queryId"]), "the idempotency key is the run's"


@pytest.mark.parametrize("agent", ["plain", "isolated-plain"])
async def test_a_plain_function_has_steps_too(agent: str, durable: Stack, tmp_path: Path) -> None:
    run = await finished(durable, agent, tmp_path / "log")
    assert run["result"]["data"] == {"first": 8, "second": 16, "answer": None}, run
    assert lines(tmp_path / "log") == ["double 4", "double 8"]
    assert [one["key"] for one in run["steps"]] == ["double", "double#2"]


@pytest.mark.parametrize("agent", ["changed", "isolated-changed"])
async def test_a_changed_sequence_names_both_steps(agent: str, durable: Stack, tmp_path: Path) -> None:
    run = await finished(durable, agent, tmp_path / "log")
    assert run["error"]["code"] == "AgentRejected"
    assert "`first` in an earlier attempt, and is `other` now" in run["error"]["detail"]


@pytest.mark.parametrize(
    ("how", "response", "tries"),
    [
        ("recorded", "ValueError: no luck", 2),
        ("retry_on", "ValueError: no luck", 1),
        ("slow", "TimeoutError: ", 1),
    ],
)
async def test_a_final_failure_is_recorded(
    how: str, response: str, tries: int, durable: Stack, tmp_path: Path
) -> None:
    """The second attempt gets it without another try."""
    run = await finished(durable, "troubled", tmp_path / "log", how=how)
    assert run["result"]["response"] == response, run
    assert len(lines(tmp_path / "log")) == tries
    assert run["steps"][0]["status"] == "failed"


async def test_a_result_that_is_no_json_is_refused(durable: Stack, tmp_path: Path) -> None:
    run = await finished(durable, "troubled", tmp_path / "log", how="odd")
    assert run["error"]["code"] == "AgentRejected"
    assert "The step odd returned what cannot be encoded as JSON" in run["error"]["detail"]


@pytest.mark.slow
async def test_a_run_has_a_thousand_steps_and_no_more(durable: Stack, tmp_path: Path) -> None:
    run = await finished(durable, "counter", tmp_path / "log", steps=1_001)
    assert run["error"]["code"] == "AgentRejected"
    assert "1,000 steps" in run["error"]["detail"]
    assert len(lines(tmp_path / "log")) == 1_000
    assert len(run["steps"]) == 1_000


async def test_the_items_of_a_job_have_steps_of_their_own(durable: Stack, tmp_path: Path) -> None:
    log = tmp_path / "log"
    body = {
        "task": "t",
        "agent": "shopper",
        "params": {"log": str(log), "failures": 1},
        "data": {"items": [1, 2, 3]},
        "concurrency": 2,
    }
    job = (await durable.http.post(f"{API}/jobs", json=body)).json()["jobId"]
    run = await durable.run_until(job, "completed", "failed", seconds=40)
    assert run["result"]["response"] == "3 of 3 items completed."  # type: ignore[index]
    assert Counter(lines(log))["pay 12"] == 3, "an item's second attempt does not pay again"


async def test_a_step_is_one_signal_and_its_result_is_not_kept_in_the_workflow(
    durable: Stack, tmp_path: Path
) -> None:
    run = await finished(durable, "counter", tmp_path / "log", steps=5)
    handle = durable.temporal.get_workflow_handle(f"default:{run['id']}")
    names = [
        event.workflow_execution_signaled_event_attributes.signal_name
        async for event in handle.fetch_history_events()
        if event.HasField("workflow_execution_signaled_event_attributes")
    ]
    assert names == [STEP_SIGNAL] * 5


async def test_cancelling_a_run_cancels_its_step(durable: Stack, tmp_path: Path) -> None:
    body = {"task": "t", "agent": "counter", "params": {"log": str(tmp_path / "log"), "pause": 30}}
    run_id = (await durable.http.post(f"{API}/tasks", json=body)).json()["taskId"]
    async with asyncio.timeout(20):
        while not (run := (await durable.http.get(f"{API}/runs/{run_id}")).json())["steps"]:
            await asyncio.sleep(0.2)
    assert [(one["key"], one["status"], one["seconds"]) for one in run["steps"]] == [("one", "running", None)]
    await durable.http.post(f"{API}/runs/{run_id}/cancel")
    await durable.run_until(run_id, "cancelled")
    assert lines(tmp_path / "log") == ["step 0"]


async def test_a_retried_run_takes_over_what_has_completed(durable: Stack, tmp_path: Path) -> None:
    """Not what has failed: that is why somebody retries it."""
    log = tmp_path / "log"
    body = {"query": "shoes", "agent": "shopper", "params": {"log": str(log), "failures": 9}, "timeout": 2}
    failed = await durable.http.post(f"{API}/query", json=body)
    run_id = failed.json()["runId"]
    assert lines(log) == ["search shoes", "pay 12"]
    for _ in range(2):
        assert (await durable.http.post(f"{API}/runs/{run_id}/retry")).status_code == 202
        await durable.run_until(run_id, "failed", seconds=30)
    assert lines(log) == ["search shoes", "pay 12"], "nothing was searched or paid again"
    run = await finished(durable, "troubled", tmp_path / "other", how="odd")
    assert (await durable.http.post(f"{API}/runs/{run['id']}/retry")).status_code == 202
