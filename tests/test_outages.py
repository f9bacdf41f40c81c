"""No worker, a full disk, a Temporal server that does not answer."""

import asyncio
import shutil
from pathlib import Path

import pytest

from tests.support.events import EVENTS, event
from tests.support.processes import EmbeddedTemporalOnly, has_status, is_live, until
from tests.support.receivers import SECRET, running_receiver
from tests.support.stack import http_client, make_settings, sevenfold, until_ready
from tests.support.stalling_proxy import stalling_proxy


async def test_deadlines_and_cancellations_hold_without_a_worker(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    async with EmbeddedTemporalOnly(settings) as address, running_receiver() as receiver:
        more = {"TEMPORAL_ADDRESS": address, "SEVENFOLD_SECRET_KEY": "A" * 43 + "="}
        with sevenfold("api", settings, **more) as api:
            async with http_client(settings.port) as http:
                await until(lambda: is_live(http, api), 30)
                body = {"task": "work", "agent": "echo", "timeout": 2}
                webhook = {"webhookUrl": receiver.url("/hook"), "webhookSecret": SECRET}
                late = (await http.post("/api/agent/tasks", json={**body, **webhook})).json()["taskId"]
                waiting = (await http.get(f"/api/agent/runs/{late}")).json()
                assert waiting["status"] == "queued"
                assert "No workers poll" in waiting["waiting"]["reason"]
                stopped = (await http.post("/api/agent/tasks", json={**body, "timeout": 60})).json()["taskId"]
                answer = await http.post(f"/api/agent/runs/{stopped}/cancel")
                assert answer.status_code == 202
                assert answer.json()["cancelRequested"] is True
                assert answer.json()["status"] == "queued"
                await until(lambda: has_status(http, late, "failed"), 10)
                run = (await http.get(f"/api/agent/runs/{late}")).json()
                assert run["error"]["code"] == "DeadlineExceeded"
                with sevenfold("worker.py", settings, **more):
                    await until(lambda: has_status(http, stopped, "cancelled"), 30)
                    await until(lambda: receiver.at("/hook"), 30)
                    again = (await http.get(f"/api/agent/runs/{late}")).json()
                    assert again["status"] == "failed"
                    assert again["error"]["code"] == "DeadlineExceeded"
                    assert receiver.at("/hook")[0].json["status"] == "failed"


async def test_full_disk_is_answered_507_and_a_finished_call_waits_for_space(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    disk = tmp_path / "data"
    disk.mkdir()
    options = "size=120m,mode=700"
    mounted = await asyncio.create_subprocess_exec("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk))
    if await mounted.wait() != 0:
        pytest.skip("mounting is not allowed here")
    try:
        with sevenfold("dev", settings) as product:
            await until_ready(settings.port, process=product)
            async with http_client(settings.port) as http:
                body = {"task": "work", "agent": "careful", "params": {"seconds": 2}}
                run_id = (await http.post("/api/agent/tasks", json=body)).json()["taskId"]
                ballast = disk / "ballast"
                free = shutil.disk_usage(disk).free
                ballast.write_bytes(b"\0" * (free - 8_000_000))
                await asyncio.sleep(1.5)
                ready = await http.get("/health/ready")
                assert ready.status_code == 503
                assert "MB are free" in ready.json()["storage"]
                refused = await http.post("/api/agent/query", json={"query": "hi"})
                assert refused.status_code == 507
                assert refused.headers["Retry-After"]
                assert (await http.post(EVENTS, json=event("t.full"))).status_code == 507
                await asyncio.sleep(2)
                ballast.unlink()
                await until(lambda: has_status(http, run_id, "completed"), 30)
                run = (await http.get(f"/api/agent/runs/{run_id}")).json()
                assert run["attempt"] == 1
                await until_ready(settings.port, process=product)
    finally:
        await (await asyncio.create_subprocess_exec("umount", "-l", str(disk))).wait()


async def test_stalled_temporal_is_answered_503_within_seconds(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    async with EmbeddedTemporalOnly(settings) as address, stalling_proxy(address, b"stall here") as proxy:
        with sevenfold("api", settings, TEMPORAL_ADDRESS=proxy.address) as api:
            async with http_client(settings.port) as http:
                await until(lambda: is_live(http, api), 30)
                first = await http.post("/api/agent/query", json={"query": "stall here"})
                assert proxy.stalled.is_set()
                again = await asyncio.gather(
                    http.post("/api/agent/query", json={"query": "hi"}),
                    http.get("/api/agent/runs/qry_abcdefghijklmnopqrstuvwxyz"),
                    http.get("/api/agent/runs"),
                    http.get("/api/agent/stats"),
                    http.get("/api/agent/events"),
                    http.post("/api/agent/events", json=event("t.stalled")),
                )
                for answer in (first, *again):
                    assert answer.status_code == 503, answer.text
                    assert answer.json()["type"] == "/problems/temporal-unavailable"
                    assert answer.elapsed.total_seconds() < 20
