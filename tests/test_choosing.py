"""Choosing a pattern, seeing how things go, and the demo: through the front door and from a terminal."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sevenfold.contracts.recommendation import ClientKind, Maturity, Situation, recommend
from sevenfold.contracts.runs import Pattern
from tests.support.receivers import SECRET, running_receiver
from tests.support.stack import Stack

SEVENFOLD = Path(sys.executable).with_name("sevenfold")
RECOMMEND = "/api/agent/patterns/recommend"


@pytest.mark.parametrize(
    ("situation", "pattern"),
    [
        (Situation(), Pattern.SYNCHRONOUS),
        (Situation(duration_seconds=2), Pattern.SYNCHRONOUS),
        (Situation(duration_seconds=4.9, requests_per_minute=50, maturity=Maturity.EARLY), Pattern.SYNCHRONOUS),
        (Situation(duration_seconds=5), Pattern.STREAMING),
        (Situation(duration_seconds=60, real_time_feedback=True), Pattern.STREAMING),
        (Situation(duration_seconds=20, real_time_feedback=False), Pattern.QUEUE),
        (Situation(duration_seconds=61), Pattern.QUEUE),
        (Situation(duration_seconds=600, client=ClientKind.THIRD_PARTY), Pattern.WEBHOOK),
        (Situation(duration_seconds=600, client=ClientKind.LEGACY), Pattern.POLLING),
        (Situation(duration_seconds=2, client=ClientKind.LEGACY, real_time_feedback=True), Pattern.POLLING),
        (Situation(requests_per_minute=500), Pattern.QUEUE),
        (Situation(requests_per_minute=5_000, client=ClientKind.OWN), Pattern.EVENT),
        (Situation(requests_per_minute=5_000, maturity=Maturity.MATURE), Pattern.EVENT),
        (Situation(maturity=Maturity.GROWING), Pattern.QUEUE),
    ],
)
def test_recommendation_answers_the_questions_of_the_article(situation: Situation, pattern: Pattern) -> None:
    found = recommend(situation)
    assert found.pattern is pattern
    assert pattern not in found.alternatives
    assert found.start.startswith("POST /api/agent/")


def test_recommended_pattern_fits_every_situation() -> None:
    for seconds in (None, 1, 30, 31, 1_000):
        for client in (None, *ClientKind):
            for rate in (None, 10, 500, 5_000):
                for watch in (None, True, False):
                    for maturity in (None, *Maturity):
                        found = recommend(
                            Situation(
                                duration_seconds=seconds,
                                client=client,
                                requests_per_minute=rate,
                                real_time_feedback=watch,
                                maturity=maturity,
                            )
                        )
                        if seconds and seconds > 30:
                            assert found.pattern is not Pattern.SYNCHRONOUS
                        if client is ClientKind.LEGACY:
                            assert found.pattern in (Pattern.POLLING, Pattern.SYNCHRONOUS, Pattern.QUEUE)


def test_recommendation_names_conflicts_and_warnings() -> None:
    legacy = recommend(Situation(client=ClientKind.LEGACY, real_time_feedback=True))
    assert "cannot show progress" in legacy.conflicts[0]
    small = recommend(Situation(requests_per_minute=5_000, maturity=Maturity.EARLY, duration_seconds=90))
    assert any("early team" in conflict for conflict in small.conflicts)
    assert any("30 s timeouts" in warning for warning in small.warnings)
    assert any("Idempotency-Key" in warning for warning in small.warnings)


async def test_recommendation_over_http(stack: Stack) -> None:
    answer = await stack.http.post(RECOMMEND, json={"durationSeconds": 45, "client": "thirdParty"})
    assert answer.status_code == 200
    assert answer.json()["pattern"] == "webhook"
    bad = await stack.http.post(RECOMMEND, json={"client": "martian", "durationSeconds": -1})
    assert bad.status_code == 422
    assert {error["pointer"] for error in bad.json()["errors"]} == {"/client", "/durationSeconds"}
    unknown = await stack.http.post(RECOMMEND, json={}, params={"agent": "nobody"})
    assert unknown.status_code == 422


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
    assert queues == {f"sevenfold{end}" for end in ("", "-batch", "-events", "-webhooks", "-brokers", "-streams")}
    assert stats["webhooks"]["successRate"] is not None
    assert (await stack.http.get("/api/agent/stats", params={"hours": 0})).status_code == 422


def ran(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(SEVENFOLD), *arguments], capture_output=True, text=True, timeout=90, stdin=subprocess.DEVNULL
    )


async def test_recommend_and_stats_commands(stack: Stack) -> None:
    url = f"http://127.0.0.1:{stack.settings.port}"
    done = await asyncio.to_thread(ran, "recommend", "--duration", "600", "--client", "legacy", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["pattern"] == "polling"
    shown = await asyncio.to_thread(ran, "recommend", "--agent", "echo", "--url", url)
    assert shown.returncode == 0, shown.stderr
    assert "POST /api/agent/" in shown.stdout
    stats = await asyncio.to_thread(ran, "stats", "--once", "--url", url)
    assert stats.returncode == 0, stats.stderr
    assert "sevenfold-batch" in stats.stdout
    away = await asyncio.to_thread(ran, "stats", "--once", "--url", "http://127.0.0.1:9")
    assert away.returncode == 2
    assert "make run" in away.stderr


async def test_demo_runs_all_patterns_and_fails_without_a_server(stack: Stack) -> None:
    """Against a running gateway; and what does not do what it should is told by the exit code."""
    url = f"http://127.0.0.1:{stack.settings.port}"
    done = await asyncio.to_thread(ran, "demo", "--url", url)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("done") == 7
    broken = await asyncio.to_thread(ran, "demo", "--url", "http://127.0.0.1:9")
    assert broken.returncode == 1
    assert broken.stdout.count("failed") >= 7
