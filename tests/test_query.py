"""Pattern 1 over HTTP."""

import asyncio
from dataclasses import replace

from sevenfold.contracts.identity import build_workflow_id, derive_id
from sevenfold.contracts.runs.run import Pattern
from sevenfold.runtime.temporal.connection import connect_temporal
from tests.support.agents import CALLS
from tests.support.dropping_proxy import dropping_proxy
from tests.support.stack import Stack, another_api


async def test_synchronous_example_of_the_article(stack: Stack) -> None:
    answer = await stack.http.post(
        "/api/agent/query",
        json={
            "query": "Analyze this customer feedback",
            "context": {"customerId": "12345", "previousInteractions": 5},
        },
    )
    assert answer.status_code == 200
    body = answer.json()
    assert list(body)[:3] == ["response", "confidence", "processingTime"]
    assert isinstance(body["response"], str)
    assert body["response"]
    assert 0 <= body["confidence"] <= 1
    assert body["processingTime"].endswith("s")
    assert float(body["processingTime"][:-1]) >= 0


async def test_options_reach_the_agent_and_metadata_is_returned(stack: Stack) -> None:
    answer = await stack.query("hello", agent="echo", context={"a": [1, None]}, metadata={"ticket": 7})
    assert answer.json()["response"] == "hello"
    assert answer.json()["data"] == {"context": {"a": [1, None]}}
    assert answer.json()["metadata"] == {"ticket": 7}


async def test_long_query_is_answered_202_and_completes(stack: Stack) -> None:
    answer = await stack.query(agent="careful", params={"seconds": 2.5}, headers={"Prefer": "wait=1"})
    assert answer.status_code == 202
    accepted = answer.json()
    assert accepted["status"] == "processing"
    assert answer.headers["Preference-Applied"] == "wait=1"
    assert answer.headers["Location"] == accepted["links"]["self"]
    assert 1 <= int(answer.headers["Retry-After"]) <= 30
    run = await stack.run_until(accepted["queryId"], "completed")
    assert run["result"]["response"] == "0 1 2 3 4 5 6 7 8 9 "
    assert 2.4 <= float(run["result"]["processingTime"][:-1]) < 60
    # the call that was opened is the one that was finished
    assert CALLS[accepted["queryId"]] == 2, "started once, finished once"
    assert run["attempt"] == 1


async def test_lost_completion_of_temporal_is_found_by_the_api(stack: Stack) -> None:
    """It is asked again, instead of being waited for until the server gives the question up after 20 s."""
    run = build_workflow_id("default", derive_id("qry", "default", Pattern.SYNCHRONOUS, "forgotten"))
    async with (
        # the workflow's type is in the start, not in the question for its end
        dropping_proxy(stack.settings.temporal_port, mark=run.encode(), without=b"Synchronous") as proxy,
        connect_temporal(stack.settings.model_copy(update={"temporal_port": proxy.port})) as client,
        another_api(replace(stack, services=replace(stack.services, client=client))) as api,
    ):
        assert (await api.query()).status_code == 200
        headers = {"Idempotency-Key": "forgotten", "Prefer": "wait=10"}
        answer = await api.query(agent="careful", params={"seconds": 1.5}, headers=headers)
    assert proxy.dropped_frames
    assert answer.status_code == 200
    assert answer.json()["queryId"] in run


async def test_respond_async_answers_before_the_agent_does(stack: Stack) -> None:
    answer = await stack.query(agent="careful", params={"seconds": 1}, headers={"Prefer": "respond-async"})
    assert answer.status_code == 202
    assert answer.headers["Preference-Applied"] == "respond-async"
    await stack.run_until(answer.json()["queryId"], "completed")


async def test_progress_is_visible_while_the_agent_works(stack: Stack) -> None:
    answer = await stack.query(agent="careful", params={"seconds": 6}, headers={"Prefer": "wait=1"})
    run_id = answer.json()["queryId"]
    seen: set[float] = set()
    async with asyncio.timeout(20):
        while (run := await stack.run(run_id))["status"] != "completed":
            if run["progress"]:
                seen.add(run["progress"]["percent"])
            await asyncio.sleep(0.2)
    assert len(seen) >= 3, seen


async def test_failed_attempts_are_retried(stack: Stack) -> None:
    answer = await stack.query(agent="flaky")
    assert answer.status_code == 200
    assert answer.json()["response"] == "attempt 3"
    run = await stack.run(answer.json()["queryId"])
    assert run["attempt"] == 3
    assert CALLS[answer.json()["queryId"]] == 3


async def test_retry_waits_as_long_as_the_agent_asks(stack: Stack) -> None:
    answer = await stack.query(agent="limited")
    assert answer.json()["response"] == "after the pause"
    assert 0.5 <= float(answer.json()["processingTime"][:-1]) < 30


async def test_rejected_request_is_502_with_its_error_code(stack: Stack) -> None:
    answer = await stack.query(agent="hopeless")
    assert answer.status_code == 502
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem = answer.json()
    assert problem["type"] == "/problems/agent-rejected"
    assert problem["code"] == "AgentRejected"
    assert problem["detail"] == "This agent never does that."
    assert problem["attempts"] == 1
    run = await stack.run(problem["runId"])
    assert run["status"] == "failed"
    assert run["error"]["code"] == "AgentRejected"
    assert CALLS[problem["runId"]] == 1


async def test_unavailable_agent_fails_after_the_last_attempt(stack: Stack) -> None:
    answer = await stack.query(agent="down", headers={"Prefer": "wait=40"})
    assert answer.status_code == 502
    assert answer.json()["code"] == "AgentUnavailable"
    assert answer.json()["attempts"] == 5
    assert CALLS[answer.json()["runId"]] == 5


async def test_agent_without_a_reply_is_a_failed_attempt(stack: Stack) -> None:
    answer = await stack.query(agent="silent", timeout=4)
    assert answer.status_code in (502, 504)
    assert "reply" in answer.json()["detail"]


async def test_internal_exception_text_is_not_shown_to_clients(stack: Stack) -> None:
    answer = await stack.query(agent="flaky", timeout=0.8)
    assert answer.status_code in (502, 504)
    assert "internal-host" not in answer.text


async def test_field_rejected_by_the_agent_is_named(stack: Stack) -> None:
    answer = await stack.query(agent="picky")
    assert answer.status_code == 422
    assert answer.json()["errors"] == [{"pointer": "/params/size", "detail": "must be a positive number"}]


async def test_deadline_ends_the_run(stack: Stack) -> None:
    answer = await stack.query(agent="careful", params={"seconds": 60}, timeout=1.5)
    assert answer.status_code == 504
    assert answer.json()["code"] == "DeadlineExceeded"
    assert "timeout of" in answer.json()["detail"]


async def test_blocking_agent_function_does_not_block_others(stack: Stack) -> None:
    slow = asyncio.create_task(stack.query(agent="stubborn", params={"seconds": 8}))
    which = {"agent": "stubborn", "status": "processing"}
    async with asyncio.timeout(6):
        while not (items := (await stack.http.get("/api/agent/runs", params=which)).json()["items"]):
            await asyncio.sleep(0.1)
    (open_run,) = items
    assert (await stack.run(open_run["id"]))["progress"] is None, "the agent reports no progress"
    quick = [await stack.query(agent="echo") for _ in range(5)]
    assert not slow.done()
    assert {answer.status_code for answer in quick} == {200}
    assert (await slow).json()["response"].startswith("thread agent")


async def test_reply_that_json_cannot_hold_fails(stack: Stack) -> None:
    answer = await stack.query("text", agent="garbled")
    assert answer.status_code == 502
    assert answer.json()["code"] == "AgentRejected"
    assert "Unicode" in answer.json()["detail"]
    answer = await stack.query("number", agent="garbled")
    assert answer.status_code == 200
    assert answer.json()["data"] == {"number": None}
    assert (await stack.run(answer.json()["queryId"]))["result"]["data"] == {"number": None}
