"""A worker that cannot go on takes its process with it, so that a supervisor starts it again."""

from datetime import timedelta
from pathlib import Path

import httpx
from temporalio.api.operatorservice.v1 import DeleteNamespaceRequest
from temporalio.api.workflowservice.v1 import RegisterNamespaceRequest
from temporalio.client import Client

from bench.ports import free_port
from tests.support.processes import EmbeddedTemporalOnly, until
from tests.support.stack import http_client, make_settings, sevenfold

NAMESPACE = "short-lived"


async def test_a_process_whose_worker_died_is_unready_and_ends_with_1(tmp_path: Path) -> None:
    """Temporal deletes the namespace: polls fail for good once the server has forgotten it, after a minute or two."""
    settings = make_settings(tmp_path, metrics_port=free_port())
    assert settings.metrics_port is not None
    async with EmbeddedTemporalOnly(settings) as address, http_client(settings.metrics_port) as http:
        temporal = await Client.connect(address)
        register = RegisterNamespaceRequest(namespace=NAMESPACE)
        register.workflow_execution_retention_period.FromTimedelta(timedelta(days=1))
        await temporal.workflow_service.register_namespace(register)
        env = {"TEMPORAL_ADDRESS": address, "TEMPORAL_NAMESPACE": NAMESPACE}
        with sevenfold("worker", settings, **env) as worker:
            await until(lambda: answers(http, 200), 60)
            await temporal.operator_service.delete_namespace(DeleteNamespaceRequest(namespace=NAMESPACE))
            await until(lambda: answers(http, 503), 20)
            await until(lambda: worker.process.poll() is not None, 240)
            assert worker.process.wait(1) == 1
            assert "the process ends, because a part of it has failed" in worker.output()


async def answers(http: httpx.AsyncClient, status: int) -> bool:
    """Whether the probe answers with this status."""
    try:
        return (await http.get("/health/ready", timeout=5)).status_code == status
    except httpx.TransportError:
        return False
