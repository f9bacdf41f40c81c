"""Events by HTTP: accepted once, reacted to once, and where a subscription wants it in order."""

import asyncio
from typing import Any

from bench.faults.api_client import ApiClient
from bench.faults.ledger import DoubledError, LostError, RefusedError, Run
from bench.faults.patterns import REPEATED, World, check

EVENT_TYPE, ORDERED_TYPE = "fault.http", "fault.ordered"

# By name; they are put before the load begins.
SUBSCRIPTIONS: dict[str, dict[str, Any]] = {
    "by-http": {"filter": {"exact": {"type": EVENT_TYPE}}, "agent": "reactor", "task": "react"},
    "in-order": {
        "filter": {"exact": {"type": ORDERED_TYPE}},
        "agent": "reactor",
        "task": "react",
        "orderBy": "data.order",
    },
}

_ORDERED = 4


async def subscribe(apis: ApiClient) -> None:
    """Have events reacted to. It acts in every process when this returns."""
    for name, terms in SUBSCRIPTIONS.items():
        (await apis.clients[0].put(f"/subscriptions/{name}", json=terms)).raise_for_status()
    await asyncio.sleep(1)


async def event(run: Run, world: World) -> None:
    """Publish an event and look for its one reaction; now and then publish it once more."""
    cloud_event = _cloud_event(EVENT_TYPE, run.key, {"key": run.key}, world)
    run.know(await _published(cloud_event, world))
    await _reacted(run.id, world)
    if world.rng.random() < REPEATED:
        run.know(await _published(cloud_event, world, "duplicate"))


async def ordered(run: Run, world: World) -> None:
    """Publish events of one ordering key, each when the one before was accepted. The audit checks the reactions
    in that order.
    """
    accepted = []
    for number in range(_ORDERED):
        key = f"{run.key}/{number}"
        cloud_event = _cloud_event(ORDERED_TYPE, key, {"key": key, "order": run.key}, world)
        accepted.append(await _published(cloud_event, world))
        run.know(accepted[0])
    for identity in accepted:
        await _reacted(identity, world)


def _cloud_event(kind: str, key: str, data: dict[str, Any], world: World) -> dict[str, Any]:
    seconds = world.rng.choice((0, 0, 0.2, 1.5))
    return {"specversion": "1.0", "id": key, "source": "/faults", "type": kind, "data": {**data, "seconds": seconds}}


async def _published(cloud_event: dict[str, Any], world: World, *expected: str) -> str:
    """Send an event until it is accepted; return its id there. The first answer may be lost, so both are right."""
    while True:
        answer = await world.api.once("POST", "/events", json=cloud_event)
        if answer is not None and answer.is_success:
            (accepted,) = answer.json()["items"]
            if accepted["status"] not in (expected or ("accepted", "duplicate")):
                raise RefusedError(str(accepted))
            return str(accepted["id"])
        if answer is not None and 400 <= answer.status_code < 500 and answer.status_code != 429:
            raise RefusedError(answer.text[:300])
        await asyncio.sleep(world.rng.uniform(0.1, 0.6))


async def _reacted(event_id: str, world: World) -> None:
    """Wait for an event's one reaction. Raises LostError, DoubledError."""
    while True:
        found = (await world.api.read(f"/events/{event_id}")).json()
        reactions = found["reactions"]
        if found["status"] in ("failed", "cancelled"):
            raise LostError(f"the event ended as {found['status']}: {found['error']}")
        # one that waits for its turn is not shown before it begins, so that none may be right for a while
        if reactions and all(one["status"] not in ("queued", "processing") for one in reactions):
            break
        await asyncio.sleep(world.rng.uniform(0.2, 0.8))
    if len(reactions) > 1:
        raise DoubledError(f"{len(reactions)} reactions of one subscription")
    check(reactions[0]["status"], "completed", "the reaction's end")
