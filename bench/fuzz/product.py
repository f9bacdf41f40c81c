"""The product under attack: its processes, real objects in it, and whether it is well in the end."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from bench.fuzz.campaign import JSON, Campaign, path, post
from bench.fuzz.exchange import Request, ask
from bench.http_load import HttpClient
from bench.ports import free_ports
from bench.processes import BIN, REPOSITORY, Child, until

_CONFIG = """
[agents.simulator]
kind = "simulator"

[agents.rejecting]
kind = "python"
target = "bench.agents:rejecting"
circuit = {enabled = false}
"""
_SIGNED_WITH = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLwSw"
# A retry waits a minute at most, and an ordering semaphore checks its holders as often; several holders may belong to
# subscriptions that were removed.
_SETTLES_WITHIN = 200.0


@dataclass(frozen=True)
class Product:
    """A running `sevenfold dev`."""

    process: Child
    port: int

    def memory(self) -> str:
        """Resident memory of the process, now and at its peak (Linux)."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        sizes = dict(line.split(":", 1) for line in status.splitlines() if line.startswith(("VmRSS", "VmHWM")))
        now, most = (int(sizes[name].split()[0]) // 1024 for name in ("VmRSS", "VmHWM"))
        return f"{now} MB, {most} MB at most"

    def causes(self) -> dict[str, str]:
        """The exceptions in the product's log, with their place in the code, by request id."""
        found: dict[str, str] = {}
        for line in self.process.log.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict) and entry.get("exception") and entry.get("request_id"):
                found.setdefault(str(entry["request_id"]), _cause(str(entry["exception"])))
        return found


def _cause(traceback: str) -> str:
    """The exception that was raised in the end, and the innermost frame that is the product's own."""
    raised = re.findall(r"^([\w.]+(?:Error|Exception|Failure|Exit)\b.*)$", traceback, re.MULTILINE)
    frames = re.findall(rf'File "{re.escape(str(REPOSITORY))}/(?!\.venv)([^"]+)", line (\d+), in (\w+)', traceback)
    where = "{}:{} {}".format(*frames[-1]) if frames else "outside of the product"
    last = raised[-1] if raised else traceback.strip().splitlines()[-1]
    return f"{where}: {re.sub(r'[0-9]{3,}', 'N', last)[:150]}"


@asynccontextmanager
async def running(directory: Path, more_config: str) -> AsyncIterator[Product]:
    """`sevenfold dev` on free ports, with the scripted agents."""
    port, temporal_port, ui_port = free_ports(3)
    config = directory / "sevenfold.toml"
    config.write_text(f"{_CONFIG}\n{more_config}", encoding="utf-8")
    environment = {
        "SEVENFOLD_PORT": str(port),
        "SEVENFOLD_TEMPORAL_PORT": str(temporal_port),
        "SEVENFOLD_TEMPORAL_UI_PORT": str(ui_port),
        "SEVENFOLD_DATA_DIR": str(directory / "data"),
        "SEVENFOLD_CONFIG": str(config),
        "SEVENFOLD_GRACE_SECONDS": "2",
        "SEVENFOLD_ALLOW_LOOPBACK_URLS": "true",
        "SEVENFOLD_WEBHOOK_SCHEDULE": "0,0.2,0.4",
        "PYTHONPATH": str(REPOSITORY),
    }
    log = directory / "product.log"
    child = Child([BIN / "sevenfold", "dev"], log=log, environment=environment, cwd=directory)
    http = HttpClient(port)
    try:
        await until(lambda: http.get("/health/ready"), 90, "sevenfold dev", child)
        yield Product(child, port)
    finally:
        await http.close()
        await child.stop()


async def known_objects(port: int, receiver_port: int) -> dict[str, str]:
    """One real object of each kind, by the prefix of its id: all have ended."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}/api/agent", timeout=60, trust_env=False) as http:

        async def made(route: str, **body: Any) -> Any:
            answer = await http.post(route, json=body)
            answer.raise_for_status()
            return answer.json()

        terms = {"filter": {"exact": {"type": "fuzz.known"}}, "task": "enrich_customer", "maxAttempts": 1}
        await made("/subscriptions", name="fuzz-known", agent="builtin", publishes="fuzz.found", **terms)
        await made("/subscriptions", name="fuzz-failing", agent="rejecting", **terms)
        await asyncio.sleep(1)
        webhook = {"webhookUrl": f"http://127.0.0.1:{receiver_port}/", "webhookSecret": _SIGNED_WITH}
        event = {"specversion": "1.0", "id": "known", "source": "/fuzz", "type": "fuzz.known", "data": {"id": "1"}}
        known = {
            "qry": (await made("/query", query="hi", **webhook))["queryId"],
            "task": (await made("/tasks", task="generate_report", params={"a": 1}))["taskId"],
            "job": (await made("/jobs", task="summarize", data={"items": ["One fine parcel.", "Two."]}))["jobId"],
            "hyb": (await made("/hybrid", query="hi"))["hybridId"],
            "evt": (await made("/events", **event))["items"][0]["id"],
            "str": (await http.post("/stream", json={"query": "hi"})).headers["X-Stream-Id"],
        }
        await http.post("/events", json={**event, "data": {"id": "2"}})
        await asyncio.sleep(2)
        letters = (await http.get("/dead-letters")).json()["items"]
        reactions = (await http.get(f"/events/{known['evt']}")).json()["reactions"]
        known["rej"] = next(one["id"] for one in letters if one["kind"] == "rejected")
        known["rea"] = next(one["id"] for one in reactions if one["subscription"] == "fuzz-known")
        known["dead"] = next(one["id"] for one in letters if one["kind"] == "reaction")
        known["whk"] = (await http.get("/webhooks/deliveries")).json()["items"][0]["id"]
        for name in ("fuzz-known", "fuzz-failing"):
            await http.delete(f"/subscriptions/{name}")
        return known


async def complaints(product: Product, campaign: Campaign) -> list[str]:
    """What is not well after the campaign."""
    found = [] if product.process.is_running else ["the process has ended"]
    readings = [
        Request("GET", path(name))
        for name in ("subscriptions", "events", "events/stream", "runs", "dead-letters", "stats", "agents")
    ]
    readings += [Request("GET", b"/health/ready"), Request("GET", path("webhooks/deliveries"))]
    question = b'{"query": "Is it fine?", "agent": "builtin"}'
    for request in (post(path("query"), question), *readings):
        answer = await ask(product.port, request)
        if answer.status != 200:
            found.append(f"{request.method} {request.target.decode()} answers {answer.status or answer.failure}")
    event = {"specversion": "1.0", "id": f"end-{campaign.seed}", "source": "/fuzz", "type": "fuzz.end"}
    answer = await ask(product.port, Request("POST", path("events"), (JSON,), json.dumps(event).encode()))
    if answer.status != 202:
        found.append(f"POST /events answers {answer.status or answer.failure}")
    return found + await _unfinished(product.port)


async def _unfinished(port: int) -> list[str]:
    """Runs and events that are still open when all should have ended."""
    waited = 0.0
    while still_open := await _open(port):
        if waited >= _SETTLES_WITHIN:
            return [f"{len(still_open)} runs and events never end: {', '.join(sorted(still_open)[:8])}"]
        await asyncio.sleep(5)
        waited += 5
    return []


async def _open(port: int) -> list[str]:
    listed = [f"runs?status={status}&limit=100" for status in ("processing", "queued")]
    answers = [(await ask(port, Request("GET", path(one)))).json for one in listed]
    items = [item for answer in answers if isinstance(answer, dict) for item in answer.get("items", [])]
    return sorted({f"{item['pattern']} {item['agent']}/{item['task']} {item['id']}"[:90] for item in items})
