"""Statistics of runs, queues and webhook deliveries."""

import asyncio
from typing import Any

from tests.support.receivers import SECRET, running_receiver
from tests.support.stack import Stack


async def test_statistics_count_runs_queues_and_deliveries(stack: Stack) -> None:
    for _ in range(3):
        await stack.query(agent="echo", params={"a": 1})
    await stack.http.post("/api/agent/tasks", json={"task": "counted", "agent": "hopeless"})
    async with running_receiver() as receiver:
        webhook = {"webhookUrl": receiver.url("/counted"), "webhookSecret": SECRET}
        await stack.query(agent="echo", **webhook)
        await receiver.received("/counted")

    def of(stats: dict[str, Any], **wanted: str) -> dict[str, Any]:
        return next((one for one in stats["runs"] if wanted.items() <= one.items()), {"count": 0, "failed": 0})

    async with asyncio.timeout(20):
        while True:
            stats = (await stack.http.get("/api/agent/stats", params={"hours": 1})).json()
            asked = of(stats, pattern="synchronous", agent="echo", task="query")
            failed = of(stats, pattern="polling", agent="hopeless", task="counted")
            if asked["count"] >= 4 and failed["failed"] == 1 and stats["webhooks"]["delivered"]:
                break
            await asyncio.sleep(0.2)
    assert failed["errorRate"] == 1.0
    assert 0 < asked["p50"] <= asked["p95"] < 30
    assert asked["errorRate"] == 0.0
    queues = {queue["name"] for queue in stats["queues"]}
    assert queues == {
        f"sevenfold{end}" for end in ("", "-batch", "-events", "-webhooks", "-brokers", "-streams", "-control")
    }
    assert stats["webhooks"]["successRate"] is not None
    assert (await stack.http.get("/api/agent/stats", params={"hours": 0})).status_code == 422
