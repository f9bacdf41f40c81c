"""JSON bodies for every route that takes one: valid ones, spoilt in structure or in bytes."""

import copy
from collections.abc import Iterator
from random import Random
from typing import Any

from bench.fuzz import hostile
from bench.fuzz.campaign import CONTENT_TYPE, JSON, SHORT_WAIT, Case, path
from bench.fuzz.exchange import Request

_EVENT = {"specversion": "1.0", "id": "b-1", "source": "/fuzz/bodies", "type": "fuzz.body", "data": {"id": "1"}}
_FILTER = {"all": [{"exact": {"type": "fuzz.never"}}, {"not": {"data": {"id": [1, 2]}}}]}
_TERMS: dict[str, Any] = {
    "filter": _FILTER,
    "agent": "builtin",
    "task": "enrich_customer",
    "params": {"a": 1},
    "publishes": "fuzz.derived",
    "publishWhen": {"data": {"segment": "business"}},
    "orderBy": "data.id",
    "concurrency": 3,
    "timeout": 20,
    "maxAttempts": 2,
    "priority": 3,
}
_OPTIONS: dict[str, Any] = {"params": {"a": 1}, "timeout": 20, "priority": 3, "metadata": {"m": 1}}
_DOCUMENT = {"text": "A fine document. It is about parcels."}
# Redriving is asked for from a time when there will be nothing to drive.
_LATER = "2999-01-01T00:00:00Z"

# Every POST and PUT with a body, and a body that it takes. The bodies of webhooks are in `bench.fuzz.webhooks`.
TEMPLATES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("POST", "query", {"query": "Is it fine?", "context": {"customerId": "1", "feedback": "Fine."}, **_OPTIONS}),
    ("POST", "stream", {"query": "Is it fine?", "context": {"a": [1, {"b": None}]}, **_OPTIONS}),
    ("POST", "tasks", {"task": "generate_report", **_OPTIONS, "params": {"orders": 3, "series": [1, 2, 3]}}),
    (
        "POST",
        "jobs",
        {
            "task": "analyze_sentiment",
            "data": {"documents": ["It is fine.", {"text": "Bad."}]},
            "fanOut": "documents",
            "concurrency": 2,
            "maxFailures": 0,
            **_OPTIONS,
        },
    ),
    (
        "POST",
        "hybrid",
        {
            "query": "Is it fine?",
            "task": "query",
            "data": {"a": 1},
            "durationEstimate": 1,
            "stream": False,
            **_OPTIONS,
        },
    ),
    ("POST", "analyze", {"document": _DOCUMENT, "task": "analyze_document", **_OPTIONS}),
    ("POST", "events", _EVENT),
    (
        "POST",
        "events/eventbridge",
        {"id": "1", "detail-type": "fuzz", "source": "fuzz", "time": _LATER, "resources": ["r"], "detail": {"a": 1}},
    ),
    ("POST", "subscriptions", {"name": "fuzz-bodies", **_TERMS}),
    ("PUT", "subscriptions/fuzz-bodies", _TERMS),
    ("POST", "dead-letters/redrive", {"since": _LATER, "kind": "reaction"}),
    ("POST", "webhooks/deliveries/redeliver", {"since": _LATER, "state": "exhausted"}),
    (
        "POST",
        "patterns/recommend",
        {
            "durationSeconds": 45,
            "client": "own",
            "requestsPerMinute": 20,
            "realTimeFeedback": True,
            "maturity": "early",
        },
    ),
)

_CONTENT_TYPES = (
    b"application/json; charset=utf-16", b"application/json;charset=\xff", b"APPLICATION/JSON",
    b"application/json;;;=", b"application/merge-patch+json", b"text/json", b"text/plain", b"", b"\xe9/\xff",
    b"application/x-www-form-urlencoded", b"multipart/form-data; boundary=x", b"multipart/form-data",
    b"application/" + b"j" * 5_000, b"application/json\t",
)  # fmt: skip


async def run(case: Case) -> None:
    """One spoilt body, and the removal of what it may have made."""
    random = case.random
    method, route, template = random.choice(TEMPLATES)
    body = _webhook_added(case, route, _spoilt(random, _fresh(case, route, template)))
    target, headers = path(route), [JSON, SHORT_WAIT]
    document = hostile.encoded(body)
    if random.random() < 0.2:
        document = hostile.damaged(random, document)
    if random.random() < 0.04:
        headers[0] = (CONTENT_TYPE, random.choice(_CONTENT_TYPES))
    await case.ask(Request(method, target, tuple(headers), document))
    if route.startswith("subscriptions"):
        await case.ask(Request("DELETE", path("subscriptions", "fuzz-bodies")))


def _fresh(case: Case, route: str, template: dict[str, Any]) -> dict[str, Any]:
    body = copy.deepcopy(template)
    if route.startswith("events"):
        body["id"] = case.name
    return body


def _webhook_added(case: Case, route: str, body: Any) -> Any:
    """An analysis needs a webhook; only this machine is called."""
    if route == "analyze" and isinstance(body, dict):
        url = f"http://127.0.0.1:{case.campaign.receiver_port}/"
        return {**body, "webhookUrl": url, "webhookSecret": "whsec_abc123"}
    return body


def _spoilt(random: Random, body: dict[str, Any]) -> Any:
    roll = random.random()
    if roll < 0.05:
        return body
    if roll < 0.1:
        return hostile.value(random)
    if roll < 0.12:
        return _weighed_down(random, body)
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        places = list(_places(body))
        parent, key = random.choice(places)
        _spoil(random, parent, key)
    if random.random() < 0.08:
        # the same name twice, or another spelling of it
        name = random.choice(list(body))
        return hostile.Members([*body.items(), (random.choice((name, _snake(name))), hostile.value(random))])
    return body


def _weighed_down(random: Random, body: dict[str, Any]) -> dict[str, Any]:
    """Up to 10 MB that cost much in the place of one value, or as a field that there is not."""
    size = int(10 ** random.uniform(4.5, 7) * 0.99)
    if random.random() < 0.15:
        return {f"unknown{number}": 0 for number in range(min(size // 14, 199_000))}
    parent, key = random.choice([*_places(body), (body, "unknown")])
    parent[key] = hostile.heavy(random, size)
    return body


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every member of every object and list in a document, by its parent and key."""
    if isinstance(value, dict | list) and not isinstance(value, hostile.Members):
        for key, child in list(value.items() if isinstance(value, dict) else enumerate(value)):
            yield value, key
            yield from _places(child)


def _spoil(random: Random, parent: Any, key: Any) -> None:
    roll = random.random()
    if roll < 0.1 and isinstance(parent, dict):
        parent.pop(key, None)
        parent[f"unknown{key}"] = 1
    elif roll < 0.2 and isinstance(parent, dict):
        parent[hostile.TEXTS[random.randrange(len(hostile.TEXTS))]] = hostile.value(random)
    elif roll < 0.25:
        parent[key] = [parent[key]]
    elif roll < 0.45:
        # a depth that the reader may take and what stores it may not
        parent[key] = hostile.nested_near_limit(random)
    else:
        parent[key] = hostile.value(random)


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
