"""Everything that a tenant may have in the gateway: runs of all patterns, events, subscriptions, deliveries."""

import asyncio
from dataclasses import dataclass, field

import httpx
from temporalio.client import Client

from sevenfold.contracts.identity import build_workflow_id
from tests.support.events import EVENTS, SUBSCRIPTIONS, event, published, wait_until_settled
from tests.support.receivers import SECRET, Receiver

API = "/api/agent"
LARGE = "x" * 300_000

# By default Temporal deletes an execution half a minute after its end.
DELETES_SOON = tuple(f'history.{queue}ProcessorUpdateAckInterval="1s"' for queue in ("transfer", "visibility"))


@dataclass
class TenantData:
    """What was started for a tenant. Each text of it holds `planted`."""

    tenant: str
    http: httpx.AsyncClient
    ended: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)

    @property
    def planted(self) -> str:
        return f"planted-for-{self.tenant}"

    @property
    def workflow_ids(self) -> list[str]:
        return [build_workflow_id(self.tenant, run_id) for run_id in (*self.ended, *self.open)]

    async def start(self, path: str, field: str, **body: object) -> str:
        answer = await self.http.post(f"{API}/{path}", json=body, headers={"Prefer": "wait=0"})
        assert answer.status_code in (200, 202), answer.text
        return str(answer.json()[field])

    async def statuses(self, ids: list[str]) -> set[str]:
        answers = [await self.http.get(f"{API}/runs/{run_id}") for run_id in ids]
        return {answer.json()["status"] for answer in answers}

    async def read_ended(self) -> dict[str, object]:
        return {one: (await self.http.get(f"{API}/runs/{one}")).json() for one in self.ended}


async def fill(tenant: str, http: httpx.AsyncClient, receiver: Receiver) -> TenantData:
    """Starts open and ended work of every kind; waits until what is to end has ended.

    The receiver's path `/<tenant>/fails` has to fail; `/<tenant>/never` is the webhook of runs that stay open.
    """
    data = TenantData(tenant, http)
    text = data.planted
    answers = {"agent": "echo", "query": text}
    slow = {"agent": "careful", "params": {"seconds": 600, "note": text}}
    hook = {"webhookUrl": receiver.url(f"/{tenant}/never"), "webhookSecret": SECRET}
    fails = {"webhookUrl": receiver.url(f"/{tenant}/fails"), "webhookSecret": SECRET, "document": text}
    items = {"items": [text, *["slow"] * 3_000]}
    data.ended = [
        await data.start("query", "queryId", **answers),
        await data.start("query", "queryId", **answers, context={"large": text + LARGE}),
        await data.start("tasks", "taskId", agent="echo", task="work", params={"note": text}),
        await data.start("jobs", "jobId", agent="item", task="work", data={"items": ["a", text, "c"]}),
        await data.start("hybrid", "hybridId", **answers),
        (analysis := await data.start("analyze", "taskId", **fails)),
    ]
    data.open = [
        await data.start("query", "queryId", query=text, **slow),
        await data.start("tasks", "taskId", task="work", **slow, **hook),
        await data.start("jobs", "jobId", task="work", agent="item", data=items, concurrency=1),
        await data.start("hybrid", "hybridId", query=text, **slow),
    ]
    async with http.stream("POST", f"{API}/stream", json=answers) as stream:
        data.ended.append(stream.headers["X-Stream-Id"])
        await stream.aread()
    await _publish(data, slow)
    async with asyncio.timeout(30):
        while await data.statuses(data.ended) != {"completed"}:
            await asyncio.sleep(0.1)
        while (await data.http.get(f"{API}/runs/{analysis}")).json()["webhook"]["state"] != "retrying":
            await asyncio.sleep(0.1)
    return data


async def _publish(data: TenantData, slow: dict[str, object]) -> None:
    """Events with a reaction that has ended, and with ordered ones of which one waits; and a dead letter."""
    for name, terms in {
        "quick": {"agent": "echo", "publishes": "t.derived"},
        "ordered": {**slow, "orderBy": "data.key"},
    }.items():
        body = {"filter": {"exact": {"type": f"t.{name}"}}, "task": "work", **terms}
        answer = await data.http.put(f"{SUBSCRIPTIONS}/{name}", json=body)
        assert answer.status_code == 201, answer.text
    await asyncio.sleep(0.6)
    quick = await published(data.http, event("t.quick", {"note": data.planted}))
    await wait_until_settled(data.http, quick)
    data.ended.append(quick)
    for _ in range(2):
        await published(data.http, event("t.ordered", {"note": data.planted, "key": "k"}))
    twice = event("t.twice", data.planted)
    await data.http.post(EVENTS, json=twice)
    await data.http.post(EVENTS, json={**twice, "data": "another"})


async def count_executions(client: Client, tenant: str) -> int:
    """Everything in visibility that names the tenant."""
    by_id = (await client.count_workflows(f"WorkflowId STARTS_WITH '{tenant}:'")).count
    return by_id + (await client.count_workflows(f"Tenant = '{tenant}'")).count
