"""Receivers that are paused: how long that lasts, and what asking costs."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from temporalio.client import Client, WorkflowHandle, WorkflowUpdateFailedError
from temporalio.contrib.pydantic import pydantic_data_converter

from sevenfold.contracts.webhooks import ENDPOINT_MEMO, EndpointState, endpoint_workflow_id, webhook_task_queue
from tests.support.processes import EmbeddedTemporalOnly
from tests.support.receivers import SECRET, Send, running_receiver, simple
from tests.support.stack import Stack, http_client, make_settings, sevenfold, until_ready
from tests.test_webhook_faults import KEY


async def paused(client: Client, host: str, task_queue: str) -> WorkflowHandle[object, object]:
    """A receiver that has failed for thirteen hours, and was tried just now."""
    now = datetime.now(UTC)
    state = EndpointState(failing_since=now - timedelta(hours=13), failures=5, is_paused=True, probed_at=None)
    return await client.start_workflow(
        "EndpointHealth",
        state,
        id=endpoint_workflow_id("default", host),
        task_queue=webhook_task_queue(task_queue),
        memo={ENDPOINT_MEMO: state},
    )


async def test_paused_endpoint_stays_paused_over_continue_as_new(stack: Stack) -> None:
    handle = await paused(stack.temporal, "fails.example", stack.settings.task_queue)
    began_as = (await handle.describe()).run_id
    await handle.execute_update("acquire_probe")
    async with asyncio.timeout(180):
        for _ in range(160):
            for _ in range(25):
                await handle.signal("record_failure")
            description = await handle.describe()
            if description.run_id != began_as:
                break
    assert description.run_id != began_as, "it never continued as new"
    state: EndpointState = await description.memo_value(ENDPOINT_MEMO, type_hint=EndpointState)
    assert state.is_paused
    assert state.probed_at is not None
    with pytest.raises(WorkflowUpdateFailedError):
        await handle.execute_update("acquire_probe")
    await handle.signal("record_success")
    await handle.result()


async def test_refused_probes_of_a_paused_endpoint_leave_no_history(stack: Stack) -> None:
    handle = await paused(stack.temporal, "asked.example", stack.settings.task_queue)
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
            remembered = await paused(client, "127.0.0.1", settings.task_queue)

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
