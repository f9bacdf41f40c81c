"""Receivers that are paused: how long that lasts, and what asking costs."""

import asyncio
from pathlib import Path

import pytest
from temporalio.client import Client, WorkflowUpdateFailedError
from temporalio.contrib.pydantic import pydantic_data_converter

from tests.support.endpoints import start_paused_endpoint
from tests.support.processes import EmbeddedTemporalOnly
from tests.support.receivers import SECRET, Send, running_receiver, simple
from tests.support.stack import Stack, http_client, make_settings, sevenfold, until_ready
from tests.test_webhook_faults import KEY


async def test_refused_probes_of_a_paused_endpoint_leave_no_history(stack: Stack) -> None:
    handle = await start_paused_endpoint(stack.temporal, "asked.example", stack.settings.task_queue)
    await handle.execute_update("acquire_probe", id="the one in an hour")
    before = (await handle.describe()).history_length
    for _ in range(30):
        with pytest.raises(WorkflowUpdateFailedError):
            await handle.execute_update("acquire_probe")
    await handle.execute_update("acquire_probe", id="the one in an hour")
    assert (await handle.describe()).history_length == before
    await handle.signal("record_success")
    await handle.result()


async def test_hourly_probe_of_a_killed_worker_is_repeated(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, secret_key=KEY)
    async with EmbeddedTemporalOnly(settings) as address, http_client(settings.port) as http:
        env = {"TEMPORAL_ADDRESS": address}
        with sevenfold("api", settings, **env), sevenfold("worker", settings, **env) as worker:
            await until_ready(settings.port)
            client = await Client.connect(address, data_converter=pydantic_data_converter)
            remembered = await start_paused_endpoint(client, "127.0.0.1", settings.task_queue)

            async def kills(send: Send) -> None:
                worker.kill()
                await simple(200)(send)

            async with running_receiver([kills]) as receiver:
                body = {"document": "text", "webhookUrl": receiver.url(), "webhookSecret": SECRET}
                task_id = (await http.post("/api/agent/analyze", json=body)).json()["taskId"]
                await receiver.received("/")
                with sevenfold("worker", settings, **env):
                    first, second = await receiver.received("/", 2, seconds=60)
                    assert first.id == second.id
                    async with asyncio.timeout(20):
                        while (await http.get(f"/api/agent/runs/{task_id}")).json()["webhook"][
                            "state"
                        ] != "delivered":
                            await asyncio.sleep(0.1)
                    async with asyncio.timeout(20):
                        await remembered.result()  # it has taken a delivery: it is forgotten
