"""Subscriptions with hostile filters, and events that are to be matched against them."""

import asyncio
from random import Random
from typing import Any

from bench.fuzz import hostile
from bench.fuzz.campaign import CONTENT_TYPE, Case, path, post
from bench.fuzz.exchange import Request

# A subscription acts within a second; every process keeps what it read for half of one.
_ACTS = 0.7

_NAMES = (
    "type",
    "source",
    "id",
    "subject",
    "time",
    "data",
    "specversion",
    "correlationid",
    "nothing",
    "",
    "Ä",
    "a.b",
    "self",
)
_STEPS = (
    "items",
    "id",
    "0",
    "1",
    "-1",
    "00",
    "٣",
    "²",
    "9" * 20,
    "1" * 4_301,
    "a" * 5_000,
    "",
    " ",
    "\ud7ff",
    "__class__",
    "b",
)


async def run(case: Case) -> None:
    """Subscribes, publishes two events, and removes the subscription. (An event that cannot be matched stays open for
    ever: the campaign's end finds it.)
    """
    created = await case.ask(post(path("subscriptions"), hostile.encoded(_subscription(case.random, case.name))))
    try:
        if created.status == 201:
            await asyncio.sleep(_ACTS)
            await case.ask(Request("GET", path("subscriptions", case.name)))
        for number in range(2):
            await case.ask(_event(case, number))
    finally:
        removed = await case.ask(Request("DELETE", path("subscriptions", case.name)))
        if created.status == 201 and removed.status != 204:
            case.fault("a subscription cannot be removed", f"{removed.status} {removed.body[:200]!r}")


def _subscription(random: Random, name: str) -> dict[str, Any]:
    terms: dict[str, Any] = {
        "name": name,
        "filter": _filter(random),
        "agent": "builtin",
        "task": "enrich_customer",
        "maxAttempts": 2,
        "timeout": 20,
    }
    if random.random() < 0.3:
        terms["orderBy"] = random.choice(
            ("subject", "type", "data.id", "data.", ".", "data." + ".".join(["items"] * 15))
        )
    if random.random() < 0.3:
        terms["concurrency"] = random.choice((1, 2, 1_000))
    if random.random() < 0.3:
        terms |= {"publishes": "fuzz.derived", "publishWhen": _filter(random)}
    if random.random() < 0.1:
        terms["params"] = {"a": random.choice((hostile.value(random), hostile.nested_near_limit(random)))}
    if random.random() < 0.05:
        terms[random.choice(tuple(terms))] = hostile.value(random)
    return terms


def _filter(random: Random, level: int = 0) -> Any:
    # far down only what holds no further filters
    roll = random.random() * (0.7 if level > 1 else 1)
    if roll < 0.3:
        return {"data": _paths(random)}
    if roll < 0.5:
        dialect = random.choice(("exact", "prefix", "suffix"))
        return {dialect: {random.choice(_NAMES): random.choice(("fuzz.filter", "", "f", hostile.text(random)))}}
    if roll < 0.7:
        return _deep(random)
    if roll < 0.8:
        return {
            random.choice(("all", "any")): [
                _filter(random, level + 1) for _ in range(random.choice((1, 2, 3, 50, 51)))
            ]
        }
    if roll < 0.85:
        return [_filter(random, level + 1)]
    if roll < 0.9:
        return {random.choice(("sql", "exact", "not", "all")): hostile.value(random)}
    return {"exact": {"type": "fuzz.filter"}}


def _paths(random: Random) -> dict[str, Any]:
    path_of_data = ".".join(random.choice(_STEPS) for _ in range(random.choice((1, 1, 2, 3, 200))))
    wanted: Any = random.choice((1, True, None, "a", [1, "a"], {}, [[]], hostile.value(random)))
    return {random.choice((path_of_data, f"items.{random.choice(_STEPS)}")): wanted}


def _deep(random: Random) -> Any:
    """One filter in another, up to the depth at which bodies are refused."""
    made: Any = {"exact": {"type": random.choice(("fuzz.filter", "none"))}}
    wrap = random.choice((lambda one: {"not": one}, lambda one: {"any": [one]}, lambda one: [one]))
    levels = random.choice(
        (
            2,
            20,
            random.randrange(25, 35),
            random.randrange(55, 66),
            random.randrange(90, 101),
            150,
            random.randrange(190, 200),
            400,
        )
    )
    for _ in range(levels):
        made = wrap(made)
    return _written(made)


def _written(made: Any) -> hostile.Raw:
    """As text, without the recursion that its depth would take."""
    opened, closed = bytearray(), bytearray()
    while isinstance(made, list) or (isinstance(made, dict) and "exact" not in made):
        if isinstance(made, list):
            (made,) = made
            opened += b"["
            closed[:0] = b"]"
        else:
            ((name, made),) = made.items()
            opened += b'{"%s":' % name.encode()
            closed[:0] = b"}"
    return hostile.Raw(bytes(opened) + hostile.encoded(made) + bytes(closed))


def _event(case: Case, number: int) -> Request:
    event = {
        "specversion": "1.0",
        "id": f"{case.name}-{number}",
        "source": "/fuzz/filters",
        "type": case.random.choice(("fuzz.filter", "fuzz.filter", "fuzz.other")),
        "subject": "s",
        "data": {"id": number, "items": [1, 2, {"b": "a"}], "": 1, "b": {"b": {"b": True}}},
    }
    headers = ((CONTENT_TYPE, b"application/cloudevents+json"),)
    return Request("POST", path("events"), headers, hostile.encoded(event))
