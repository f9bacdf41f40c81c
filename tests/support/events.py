"""Events and subscriptions over HTTP."""

import asyncio
import itertools
import json
from typing import Any

import httpx

from tests.support.stack import Stack

EVENTS = "/api/agent/events"
SUBSCRIPTIONS = "/api/agent/subscriptions"
LETTERS = "/api/agent/dead-letters"

_NUMBERS = itertools.count(1)


def event(event_type: str, data: Any = None, **more: Any) -> dict[str, Any]:
    """A CloudEvent with an id of its own."""
    cloud_event = {"specversion": "1.0", "id": f"e-{next(_NUMBERS)}", "source": "/tests", "type": event_type, **more}
    return cloud_event if data is None else {**cloud_event, "data": data}


async def published(http: httpx.AsyncClient, cloud_event: dict[str, Any]) -> str:
    """Accepts an event; its id here."""
    answer = await http.post(EVENTS, json=cloud_event)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["items"][0]["id"])


async def subscribed(stack: Stack, name: str, event_type: str, agent: str = "echo", **terms: Any) -> None:
    """Puts a subscription, and waits until it acts in every process."""
    body = {"filter": {"exact": {"type": event_type}}, "agent": agent, "task": "work", **terms}
    answer = await stack.http.put(f"{SUBSCRIPTIONS}/{name}", json=body)
    assert answer.status_code in (200, 201), answer.text
    await asyncio.sleep(0.6)


async def tree(http: httpx.AsyncClient, event_id: str) -> dict[str, Any]:
    """What an event caused."""
    answer = await http.get(f"{EVENTS}/{event_id}")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def open_ones(node: dict[str, Any]) -> int:
    """How much in a tree has not ended yet."""
    count = int(node["status"] in ("queued", "processing"))
    for reaction in node["reactions"]:
        count += reaction["status"] in ("queued", "processing")
        count += sum(map(open_ones, reaction["published"]))
    return count


async def dead_letters(http: httpx.AsyncClient, containing: str, *, seconds: float = 60) -> list[dict[str, Any]]:
    """The dead letters with this text, once there are any."""
    async with asyncio.timeout(seconds):
        while True:
            items = (await http.get(LETTERS, params={"limit": 100})).json()["items"]
            if found := [one for one in items if containing in json.dumps(one)]:
                return found
            await asyncio.sleep(0.2)


async def wait_until_settled(http: httpx.AsyncClient, event_id: str, *, seconds: float = 30) -> dict[str, Any]:
    """The tree, once everything in it has ended."""
    async with asyncio.timeout(seconds):
        while open_ones(found := await tree(http, event_id)) or found["status"] in ("queued", "processing"):
            await asyncio.sleep(0.1)
    return found


def by_subscription(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """A tree's first reactions."""
    return {reaction["subscription"]: reaction for reaction in found["reactions"]}
