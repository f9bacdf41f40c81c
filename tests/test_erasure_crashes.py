"""An erasure whose worker is killed in its steps continues at the next worker."""

import asyncio
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
from temporalio.client import Client
from temporalio.service import RPCError

from tests.support.processes import EmbeddedTemporalOnly, until
from tests.support.receivers import running_receiver
from tests.support.stack import http_client, make_settings, sevenfold, until_ready
from tests.support.tenant_data import API, DELETES_SOON, count_executions, fill
from tests.support.tenants import TenantKey, key_config

ADMIN = TenantKey("ops", ("admin",))
ACME, GLOBEX = TenantKey("acme"), TenantKey("globex")
ERASED = f"{API}/admin/tenants/acme"


class Watch:
    """Reads the progress, and the answers to the tenant's key, all the time."""

    def __init__(self, admin: httpx.AsyncClient, tenant: httpx.AsyncClient) -> None:
        self._admin = admin
        self._tenant = tenant
        self.views: list[dict[str, Any]] = []
        self.answers: list[int] = []

    async def run(self) -> None:
        while True:
            view = await self._admin.get(f"{ERASED}/erasure")
            assert view.status_code == 200, view.text
            self.answers.append((await self._tenant.get(f"{API}/agents")).status_code)
            self.views.append(view.json())
            await asyncio.sleep(0.05)

    @property
    def phase(self) -> str:
        return str(self.views[-1]["phase"]) if self.views else ""


async def test_killed_workers_erasure_continues(tmp_path: Path) -> None:
    settings = make_settings(
        tmp_path,
        more_config=key_config(ADMIN, ACME, GLOBEX),
        temporal_dynamic_config=DELETES_SOON,
        webhook_schedule=(0, 600),
    )
    clients = [http_client(settings.port) for _ in range(3)]
    for client, key in zip(clients, (ADMIN, ACME, GLOBEX), strict=True):
        client.headers.update(key.headers)
    admin, acme, globex = clients
    async with EmbeddedTemporalOnly(settings) as address, running_receiver() as receiver, admin, acme, globex:
        receiver.by_path = {"/acme/fails": 500, "/globex/fails": 500}
        with ExitStack() as processes:
            env = {"TEMPORAL_ADDRESS": address, "SEVENFOLD_SECRET_KEY": "A" * 43 + "="}
            processes.enter_context(sevenfold("api", settings, **env))
            worker = processes.enter_context(sevenfold("worker", settings, **env))
            await until_ready(settings.port)
            erased, kept = await fill("acme", acme, receiver), await fill("globex", globex, receiver)
            before = await kept.read_ended()
            temporal = await Client.connect(address)
            neighbours = await count_executions(temporal, "globex")
            assert (await admin.delete(ERASED, params={"erase": True})).status_code == 202
            watch = Watch(admin, acme)
            watching = asyncio.create_task(watch.run())
            for phase in ("cancelling", "removing histories"):
                await until(lambda phase=phase: watch.phase == phase, 60)
                await asyncio.sleep(1.0)
                assert watch.phase == phase
                worker.kill()
                await asyncio.sleep(1.0)
                assert watch.phase == phase, "without a worker the progress can be read, and stands still"
                worker = processes.enter_context(sevenfold("worker", settings, **env))
            await until(lambda: watch.phase == "done", 120)
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching
            check_progress(watch)
            assert await count_executions(temporal, "acme") == 0
            for workflow_id in (*erased.workflow_ids, "acme:subscriptions"):
                with suppress(RPCError):
                    raise AssertionError(await temporal.get_workflow_handle(workflow_id).describe())
            assert not (settings.data_dir / "payloads" / "tenants" / "acme").exists()
            assert await kept.read_ended() == before
            assert await kept.statuses(kept.open) == {"processing"}
            # Its own work goes on meanwhile.
            assert await count_executions(temporal, "globex") >= neighbours
    assert receiver.at("/acme/never") == []


def check_progress(watch: Watch) -> None:
    phases = list(dict.fromkeys(view["phase"] for view in watch.views))
    assert phases[:2] == ["cancelling", "removing histories"]
    assert phases[-1] == "done"
    counts = [view["removedHistories"] for view in watch.views]
    assert counts[-1] > 20
    assert counts == sorted(counts), "it never counts down"
    # The key is part of sevenfold.toml: it works again when all is removed, and not before.
    refused = [answer for answer, view in zip(watch.answers, watch.views, strict=True) if view["phase"] != "done"]
    assert set(refused[refused.index(401) :]) == {401}
    assert watch.views[-1]["configuredKeys"] == 1
