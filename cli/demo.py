"""`sevenfold demo`: runs all seven patterns, one after the other, and shows each."""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.tree import Tree

from sevenfold.adapters.webhooks.signatures import verify
from sevenfold.cli.client import API, key_headers
from sevenfold.cli.demo_stack import DemoError, Receiver, fresh_gateway, running_receiver

_SECRET = "whsec_abc123"  # noqa: S105  (the article's)
_STEP_SECONDS = 20


@dataclass
class _Demo:
    """What the steps share: client, receiver, console, and the ids of the runs they started."""

    http: httpx.AsyncClient
    receiver: Receiver
    console: Console
    runs: dict[str, str] = field(default_factory=dict)

    async def call(self, method: str, path: str, *, expected: int, **more: Any) -> Any:
        answer = await self.http.request(method, f"{API}{path}", **more)
        if answer.status_code != expected:
            raise DemoError(f"{method} {path} answered {answer.status_code} instead of {expected}: {answer.text}")
        return answer.json()

    async def poll_until_done(self, path: str, show: Callable[[float], None]) -> dict[str, Any]:
        """Polls until the run has ended; returns its last state."""
        while (state := await self.call("GET", path, expected=200))["status"] in ("queued", "processing"):
            progress = state.get("progress") or 0
            show(progress if isinstance(progress, int | float) else progress["percent"])
            await asyncio.sleep(0.2)
        show(100)
        if state["status"] != "completed":
            raise DemoError(f"{path} ended with status {state['status']}: {state.get('error')}")
        return dict(state)

    @asynccontextmanager
    async def progress_bar(self, title: str) -> AsyncIterator[Callable[[float], None]]:
        columns = (TextColumn(f"   {title}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
        with Progress(*columns, console=self.console) as bars:
            task = bars.add_task(title, total=100)
            yield lambda percent: bars.update(task, completed=percent)


async def _synchronous(demo: _Demo) -> str:
    feedback = "Third broken parcel in a row, and nobody answers. I am disappointed, and I will cancel my contract."
    context = {"customerId": "12345", "previousInteractions": 5, "feedback": feedback}
    body = {"query": "Analyze this customer feedback", "context": context}
    answer = await demo.call("POST", "/query", expected=200, json=body)
    demo.console.print(f"   “{answer['response'][:160]}…” ({answer['processingTime']})")
    return str(answer["queryId"])


async def _queue(demo: _Demo) -> str:
    data = {"documentIds": [f"doc{number}" for number in range(1, 41)]}
    params = {"seconds": 0.4, "steps": 2}
    body = {"task": "analyze_sentiment", "data": data, "agent": "simulator", "params": params, "concurrency": 8}
    job = await demo.call("POST", "/jobs", expected=202, json=body)
    async with demo.progress_bar(f"{len(data['documentIds'])} documents, {job['estimatedTime']}") as show:
        state = await demo.poll_until_done(f"/jobs/{job['jobId']}", show)
    if state["progress"]["completed"] != 40:
        raise DemoError(f"not all 40 documents were processed: {state['progress']}")
    return str(job["jobId"])


async def _events(demo: _Demo) -> str:
    consumers = {"demo-crm": "update_crm", "demo-marketing": "trigger_campaign"}
    created, enriched = {"exact": {"type": "customer.created"}}, {"exact": {"type": "customer.enriched"}}
    analysis = {"filter": created, "agent": "builtin", "task": "enrich_customer", "publishes": "customer.enriched"}
    subscriptions = {"demo-enrich": analysis}
    for name, task in consumers.items():
        subscriptions[name] = {"filter": enriched, "agent": "simulator", "task": task, "params": {"seconds": 0.2}}
    for name, one in subscriptions.items():
        answer = await demo.http.put(f"{API}/subscriptions/{name}", json=one)
        answer.raise_for_status()
    await asyncio.sleep(1)  # a subscription takes effect within a second
    data = {"id": "12345", "name": "Ada Lovelace", "email": "ada@analytical.example"}
    event = {"specversion": "1.0", "id": f"demo-{time.time_ns()}", "source": "/demo", "type": "customer.created"}
    accepted = await demo.call("POST", "/events", expected=202, json={**event, "data": data})
    event_id = str(accepted["items"][0]["id"])
    while True:
        found = await demo.call("GET", f"/events/{event_id}", expected=200)
        tree = Tree("   customer.created")
        reacted = _draw_branch(tree, found["reactions"])
        if set(subscriptions) <= reacted:
            demo.console.print(tree)
            return event_id
        await asyncio.sleep(0.2)


def _draw_branch(tree: Tree, reactions: list[dict[str, Any]]) -> set[str]:
    """Draws reactions and the events that they published. Returns the subscriptions with completed reactions."""
    completed: set[str] = set()
    for reaction in reactions:
        if reaction["status"] == "failed":
            raise DemoError(f"{reaction['subscription']} failed: {reaction['error']}")
        completed |= {reaction["subscription"]} if reaction["status"] == "completed" else set()
        branch = tree.add(f"[bold]{reaction['subscription']}[/bold] {reaction['status']}")
        for event in reaction["published"]:
            completed |= _draw_branch(branch.add(event["type"]), event["reactions"])
    return completed


async def _webhook(demo: _Demo) -> str:
    webhook = {"webhookUrl": demo.receiver.webhook, "webhookSecret": _SECRET}
    task = await demo.call("POST", "/analyze", expected=202, json={"document": demo.receiver.document, **webhook})
    headers, body = await demo.receiver.posts.get()
    verify([_SECRET], headers, body, now=time.time())
    payload = json.loads(body)
    if (payload["taskId"], payload["status"]) != (task["taskId"], "completed"):
        raise DemoError(f"the webhook posted an unexpected payload: {payload}")
    demo.console.print(f"   received and verified: X-Webhook-Signature {headers['x-webhook-signature'][:24]}…")
    demo.console.print(f"   “{payload['result']['response'][:140]}…”")
    return str(task["taskId"])


async def _polling(demo: _Demo) -> str:
    params = {"seconds": 2, "steps": 20, "text": "The report of week 47."}
    body = {"task": "generate_report", "agent": "simulator", "params": params}
    task = await demo.call("POST", "/tasks", expected=202, json=body)
    async with demo.progress_bar("generate_report") as show:
        await demo.poll_until_done(f"/tasks/{task['taskId']}", show)
    return str(task["taskId"])


async def _streaming(demo: _Demo) -> str:
    text = "Agents are programs that decide for themselves what to do next, and report while they do it."
    params = {"seconds": 2.5, "steps": 25, "text": text}
    body = {"query": "Write a blog post about AI agents", "agent": "simulator", "params": params}
    received = ""
    headers = {"Accept": "application/x-ndjson"}
    async with demo.http.stream("POST", f"{API}/stream", json=body, headers=headers) as answer:
        demo.console.print("   ", end="")
        async for line in answer.aiter_lines():
            chunk = json.loads(line).get("chunk", "")
            received += chunk
            demo.console.print(chunk, end="")
        demo.console.print()
        stream_id = answer.headers["X-Stream-Id"]
    if received != text:
        raise DemoError(f"the stream sent an unexpected text: {received!r}")
    return str(stream_id)


async def _hybrid(demo: _Demo) -> str:
    faq = {"query": "Do you ship to Norway?", "agent": "simulator", "params": {"seconds": 0.1}}
    short = await demo.call("POST", "/hybrid", expected=200, json=faq)
    demo.console.print(f"   FAQ: answered at once. {short['routing']['reason']}")
    issue = {"query": "My account is locked", "agent": "simulator", "params": {"seconds": 2, "steps": 20}}
    long = await demo.call("POST", "/hybrid", expected=202, json={**issue, "durationEstimate": 30})
    demo.console.print(f"   Account issue: queued. {long['routing']['reason']}")
    async with demo.progress_bar("account issue") as show:
        await demo.poll_until_done(f"/runs/{long['hybridId']}", show)
    return str(long["hybridId"])


_STEPS: list[tuple[str, str, Callable[[_Demo], Awaitable[str]]]] = [
    ("1 · synchronous", "POST /query", _synchronous),
    ("2 · queue", "POST /jobs", _queue),
    ("3 · event-driven", "POST /events", _events),
    ("4 · webhook callback", "POST /analyze", _webhook),
    ("5 · polling", "POST /tasks", _polling),
    ("6 · streaming", "POST /stream", _streaming),
    ("7 · hybrid", "POST /hybrid", _hybrid),
]


def run_demo(
    url: Annotated[
        str | None,
        typer.Option(
            help="A running gateway with the simulator and SEVENFOLD_ALLOW_LOOPBACK_URLS=true. Without it the demo "
            "starts one and stops it at the end."
        ),
    ] = None,
) -> None:
    """Runs all seven patterns. Exits with 0 if each behaved as expected, else with 1."""
    raise typer.Exit(asyncio.run(_run(Console(), url)))


async def _run(console: Console, url: str | None) -> int:
    failed: dict[str, str] = {}
    gateway = nullcontext((url.rstrip("/"), None)) if url else fresh_gateway()
    async with gateway as (address, ui), running_receiver() as receiver, _client(address) as http:
        demo = _Demo(http, receiver, console)
        console.print(f"Sevenfold at {address}" + (f", Temporal UI at {ui}" if ui else ""))
        for title, call, step in _STEPS:
            console.print(f"\n[bold]{title}[/bold]   {call}")
            try:
                async with asyncio.timeout(_STEP_SECONDS):
                    demo.runs[title] = await step(demo)
            except Exception as error:
                failed[title] = f"{type(error).__name__}: {error}"
                console.print(f"   [red]{failed[title]}[/red]")
        console.print(await _summary(demo, failed))
        if ui and sys.stdin.isatty():
            await asyncio.to_thread(input, "Look around in the Temporal UI. Press Enter to stop everything. ")
    return 1 if failed else 0


def _client(address: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=address, timeout=30, trust_env=False, headers=key_headers())


async def _summary(demo: _Demo, failed: dict[str, str]) -> Table:
    table = Table("pattern", "", title="\nSummary")
    table.add_column("run in the Temporal UI", overflow="fold")
    for title, _, _ in _STEPS:
        link = ""
        if run := demo.runs.get(title):
            link = (await demo.call("GET", f"/runs/{run}", expected=200))["links"]["temporalUi"] or run
        table.add_row(title, "[red]failed[/red]" if title in failed else "[green]done[/green]", link)
    return table
