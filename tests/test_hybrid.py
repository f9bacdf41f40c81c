"""Pattern 7: short work answered at once, long work with 202; wrong guesses; the article's combinations."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from bench.server_sent_events import events as sse
from sevenfold.contracts.runs.hybrid import Estimate, EstimateBasis, Route, choose_route
from tests.support.agents import CALLS
from tests.support.receivers import SECRET, running_receiver
from tests.support.stack import Stack, running_stack

HYBRID = "/api/agent/hybrid"


async def ask(stack: Stack, *, headers: dict[str, str] | None = None, **body: Any) -> httpx.Response:
    request_body = {"query": "hi", "agent": "careful", **body}
    return await stack.http.post(HYBRID, json=request_body, headers=headers or {})


@pytest.mark.parametrize(
    ("estimate", "chosen", "because"),
    [
        (Estimate(basis=EstimateBasis.CALLER, seconds=2), Route.SYNCHRONOUS, "You expect 2 s"),
        (Estimate(basis=EstimateBasis.CALLER, seconds=20), Route.QUEUE, "beyond the threshold"),
        (Estimate(basis=EstimateBasis.MEASURED, p50=1, p95=2, runs=9), Route.SYNCHRONOUS, "95 % no more than 2 s"),
        (Estimate(basis=EstimateBasis.MEASURED, p50=1, p95=9, runs=9), Route.SYNCHRONOUS, "it may be short"),
        (Estimate(basis=EstimateBasis.MEASURED, p50=8, p95=9, runs=9), Route.QUEUE, "half took 8 s"),
        (Estimate(basis=EstimateBasis.CONFIGURED, seconds=8), Route.QUEUE, "duration_estimate is 8 s"),
        (Estimate(basis=EstimateBasis.UNKNOWN), Route.SYNCHRONOUS, "No duration is known yet"),
    ],
)
def test_route_follows_the_estimate(estimate: Estimate, chosen: Route, because: str) -> None:
    found = choose_route(estimate, 5, stream=False)
    assert found.chosen is chosen
    assert because in found.reason
    if chosen is Route.QUEUE:
        assert choose_route(estimate, 5, stream=True).chosen is Route.STREAMING


async def test_short_work_is_answered_synchronously(stack: Stack) -> None:
    answer = await ask(stack, agent="echo")
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["response"] == "hi"
    assert body["hybridId"].startswith("hyb_")
    assert body["routing"]["chosen"] == "synchronous"
    assert body["routing"]["reason"]
    run = await stack.run(body["hybridId"])
    assert run["pattern"] == "hybrid"
    shown = await (
        await stack.temporal.get_workflow_handle(f"default:{body['hybridId']}").describe()
    ).static_details()
    assert shown == f"Chosen: **synchronous**. {body['routing']['reason']}"


async def test_underestimated_work_is_answered_with_202(tmp_path: Path) -> None:
    """The same run goes on: its agent is asked once. The threshold is the agent's own."""
    config = '[agents.slow]\nkind = "python"\ntarget = "tests.support.agents:careful"\nhybrid_threshold = 0.7\n'
    async with running_stack(tmp_path, more_config=config) as stack:
        answer = await ask(stack, agent="slow", params={"seconds": 2}, durationEstimate=0.5)
        assert answer.status_code == 202, answer.text
        body = answer.json()
        assert body["routing"]["chosen"] == "synchronous"
        assert answer.headers["location"] == body["links"]["self"] == f"/api/agent/runs/{body['hybridId']}"
        assert int(answer.headers["retry-after"]) >= 1
        run = await stack.run_until(body["hybridId"], "completed")
        assert run["attempt"] == 1
        assert CALLS[body["hybridId"]] == 2, "started once, finished once"


async def test_overestimated_work_is_available_by_polling(stack: Stack) -> None:
    for _ in range(5):  # a busy machine may need longer than one waits there
        answer = await ask(stack, agent="echo", durationEstimate=3_600)
        if answer.status_code == 200:
            break
    assert answer.status_code == 200
    assert answer.json()["routing"]["chosen"] == "queue"


async def test_estimate_learns_from_measured_durations(stack: Stack) -> None:
    """Six runs of 1.2 s are enough to know that a threshold of a fraction of it is too short."""
    await asyncio.gather(*(ask(stack, task="measured", params={"seconds": 1.2}) for _ in range(6)))
    async with asyncio.timeout(20):
        while True:
            body = (await ask(stack, task="measured", params={"seconds": 0.1})).json()
            if body["routing"]["estimate"]["basis"] == "measured":
                break
            await asyncio.sleep(0.5)
    estimate = body["routing"]["estimate"]
    assert estimate["runs"] >= 5
    assert 0.1 < estimate["p50"] < 20
    recommended = await stack.http.post(
        "/api/agent/patterns/recommend", json={}, params={"agent": "careful", "task": "measured"}
    )
    assert recommended.json()["reasons"][0]["question"] == "durationSeconds"


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"query": None}, ""),
        ({"durationEstimate": 0}, "/durationEstimate"),
        ({"agent": "nobody"}, "/agent"),
        ({"unknown": 1}, "/unknown"),
    ],
)
async def test_invalid_hybrid_request_names_the_field(stack: Stack, body: dict[str, Any], pointer: str) -> None:
    answer = await ask(stack, **body)
    assert answer.status_code == 422
    assert pointer in [error["pointer"] for error in answer.json()["errors"]]


async def test_hybrid_combines_sync_and_queue(stack: Stack) -> None:
    """The article's first combination: one endpoint for both, and Prefer limits the wait."""
    short, long = await asyncio.gather(
        ask(stack, agent="echo"), ask(stack, params={"seconds": 60}, durationEstimate=60)
    )
    assert (short.status_code, long.status_code) == (200, 202)
    waited = await ask(stack, params={"seconds": 1.5}, durationEstimate=60, headers={"Prefer": "wait=10"})
    assert waited.status_code == 200
    assert waited.json()["routing"]["chosen"] == "queue"
    await stack.http.post(long.json()["links"]["cancel"])
    assert (await stack.run_until(long.json()["hybridId"], "cancelled"))["status"] == "cancelled"


async def test_hybrid_combines_queue_and_webhook(stack: Stack) -> None:
    async with running_receiver() as receiver:
        webhook = {"webhookUrl": receiver.url("/hybrid"), "webhookSecret": SECRET}
        answer = await ask(stack, params={"seconds": 1.5}, durationEstimate=60, **webhook)
        assert answer.status_code == 202
        (post,) = await receiver.received("/hybrid")
        post.check()
        assert post.json["hybridId"] == answer.json()["hybridId"]
        assert post.json["status"] == "completed"


async def test_hybrid_streams_long_work(stack: Stack) -> None:
    answer = await ask(stack, params={"seconds": 1}, durationEstimate=60, stream=True)
    assert answer.status_code == 202
    assert answer.json()["routing"]["chosen"] == "streaming"
    async with stack.http.stream("GET", answer.json()["links"]["stream"]) as stream:
        text = "".join([one.data["chunk"] async for one in sse(stream) if one.is_chunk])
    assert text == "".join(f"{step} " for step in range(10))


async def test_failed_webhook_falls_back_to_polling(stack: Stack) -> None:
    """The receiver never accepts the delivery; polling shows that, and the result."""
    async with running_receiver([500] * 10) as receiver:
        webhook = {"webhookUrl": receiver.url("/fallback"), "webhookSecret": SECRET}
        answer = await ask(stack, agent="echo", durationEstimate=60, **webhook)
        run_id = answer.json()["hybridId"]
        async with asyncio.timeout(30):
            while (run := await stack.run(run_id))["webhook"]["state"] != "exhausted":  # type: ignore[index]
                await asyncio.sleep(0.1)
    assert run["status"] == "completed"
    assert run["result"]["response"] == "hi"  # type: ignore[index]


async def test_hybrid_idempotency_key_finds_the_same_run(stack: Stack) -> None:
    headers = {"Idempotency-Key": "hybrid-1"}
    first = await ask(stack, agent="echo", headers=headers)
    again = await ask(stack, agent="echo", headers=headers)
    assert again.json()["hybridId"] == first.json()["hybridId"]
    assert again.json()["routing"] == first.json()["routing"]
    assert again.headers["idempotency-replayed"] == "true"
    assert (await ask(stack, agent="echo", query="other", headers=headers)).status_code == 422


async def test_failed_hybrid_run_is_a_problem(stack: Stack) -> None:
    answer = await ask(stack, agent="hopeless")
    assert answer.status_code == 502
    assert answer.json()["code"] == "AgentRejected"
    assert answer.json()["runId"].startswith("hyb_")
