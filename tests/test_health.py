"""Readiness: what is missing, since when, and whether the process can serve without it."""

import asyncio
import os
import shutil
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bench.ports import free_port
from tests.support.broker_servers import Server, broker_server
from tests.support.processes import until
from tests.support.redis_server import redis_server
from tests.support.stack import Stack, running_stack


async def ready(stack: Stack) -> tuple[int, dict[str, Any]]:
    answer = await stack.http.get("/health/ready")
    return answer.status_code, answer.json()


async def becomes(stack: Stack, status: int, health: str, seconds: float = 5) -> dict[str, Any]:
    """Waits until the readiness is this one; returns it."""

    async def is_so() -> bool:
        code, body = await ready(stack)
        return (code, body["status"]) == (status, health)

    await until(is_so, seconds)
    return (await ready(stack))[1]


async def test_check_finds_no_fault(stack: Stack) -> None:
    assert await becomes(stack, 200, "ok", 20) == {"status": "ok", "temporal": "ok", "worker": "ok"}


async def test_a_temporal_that_hangs_makes_the_process_unready_within_seconds(tmp_path: Path) -> None:
    async with running_stack(tmp_path) as stack:
        await becomes(stack, 200, "ok", 20)
        assert stack.server.pid is not None
        os.kill(stack.server.pid, signal.SIGSTOP)
        try:
            missing = await becomes(stack, 503, "failing")
            assert missing["worker"] == "unknown"
            since = datetime.fromisoformat(missing["since"]["temporal"])
            await asyncio.sleep(1)
            again = (await ready(stack))[1]
            assert datetime.fromisoformat(again["since"]["temporal"]) == since, "since it was first missing"
            assert datetime.now(UTC) - since < timedelta(seconds=20)
        finally:
            os.kill(stack.server.pid, signal.SIGCONT)
        assert "since" not in await becomes(stack, 200, "ok", 20)


async def test_readiness_reports_a_payload_store_that_takes_no_writes(tmp_path: Path) -> None:
    async with running_stack(tmp_path) as stack:
        payloads = stack.settings.data_dir / "payloads"
        shutil.rmtree(payloads, ignore_errors=True)
        payloads.write_text("a file in its place")
        missing = await becomes(stack, 200, "degraded")
        assert "takes no writes" in missing["payloads"]
        assert (await stack.query("small", agent="echo")).status_code == 200
        payloads.unlink()
        await becomes(stack, 200, "ok")


async def test_readiness_reports_an_unreachable_redis(tmp_path: Path) -> None:
    with redis_server(tmp_path) as redis:
        async with running_stack(tmp_path, redis_url=redis.url) as stack:
            assert (await ready(stack))[1]["status"] == "ok"
            redis.kill()
            assert "Redis" in (await becomes(stack, 200, "degraded"))["streams"]
            redis.start()
            await becomes(stack, 200, "ok", 15)


async def test_brokers_that_are_not_connected_are_named(tmp_path: Path) -> None:
    config = f'[brokers.main]\nkind = "nats"\nurl = "nats://127.0.0.1:{free_port()}"\n'
    config += '[[brokers.main.publish]]\nto = "out"\nfilter = {prefix = {type = "t."}}\n'
    async with running_stack(tmp_path, more_config=config) as stack:
        assert (await becomes(stack, 200, "degraded"))["brokers"] == "not connected: main; their events wait"


@pytest.mark.skipif(shutil.which("nats-server") is None, reason="needs nats-server")
async def test_readiness_reports_a_lost_broker_and_its_return(tmp_path: Path) -> None:
    """Its client reconnects by itself, so the connection never ends."""
    with broker_server("nats", tmp_path) as nats:
        assert isinstance(nats, Server)
        config = f'[brokers.main]\nkind = "nats"\nurl = "{nats.url}"\n'
        config += '[[brokers.main.publish]]\nto = "out"\nfilter = {prefix = {type = "t."}}\n'
        async with running_stack(tmp_path, more_config=config) as stack:
            await becomes(stack, 200, "ok", 15)
            await asyncio.to_thread(nats.stop)
            assert "main" in (await becomes(stack, 200, "degraded", 10))["brokers"]
            assert 'sevenfold_broker_connected{broker="main"} 0' in (await stack.http.get("/metrics")).text
            await asyncio.to_thread(nats.start)
            await becomes(stack, 200, "ok", 30)
