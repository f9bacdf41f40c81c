"""Addresses: query parameters, cursors, and ids of real objects at endpoints of other kinds."""

import base64
import hashlib
from random import Random
from urllib.parse import quote

from bench.fuzz import hostile
from bench.fuzz.campaign import CONTENT_TYPE, JSON, SHORT_WAIT, Case, path
from bench.fuzz.exchange import Request

_LISTS = {
    "runs": ("pattern", "status", "agent", "task", "createdAfter", "createdBefore", "limit", "cursor"),
    "events": ("type", "source", "correlation", "since", "until", "limit", "cursor"),
    "dead-letters": ("kind", "since", "limit", "cursor"),
    "webhooks/deliveries": ("state", "run", "host", "since", "limit", "cursor"),
    "events/stream": ("type", "source", "correlation", "subscription", "kind", "since"),
    "subscriptions": ("limit", "cursor"),
    "agents": ("limit",),
    "stats": ("hours",),
}
# The others ask Temporal's visibility dozens of times each, which it allows for all together.
_CHEAP = tuple(name for name in _LISTS if name not in ("agents", "stats"))
_TIMES = frozenset({"createdAfter", "createdBefore", "since", "until"})
_NUMBERS = (
    "0",
    "1",
    "-1",
    "100",
    "101",
    "1e2",
    "1.0",
    " 1",
    "+1",
    "0x1",
    "٣",
    "9" * 20,
    "9" * 5_000,
    "",
    "null",
    "NaN",
)
_WORDS = (
    "failed",
    "processing",
    "reaction",
    "event",
    "exhausted",
    "pending",
    "synchronous",
    "builtin",
    "FAILED",
    "rejected",
)

_BY_ID = (
    ("GET", "runs/{}"), ("GET", "runs/{}/stream"), ("POST", "runs/{}/cancel"), ("GET", "tasks/{}"),
    ("GET", "jobs/{}"), ("GET", "jobs/{}/results"), ("GET", "stream/{}"), ("POST", "stream/{}/cancel"),
    ("GET", "events/{}"), ("POST", "events/{}/replay"), ("GET", "dead-letters/{}"),
    ("POST", "dead-letters/{}/redrive"), ("GET", "webhooks/deliveries/{}"),
    ("POST", "webhooks/deliveries/{}/redeliver"), ("GET", "subscriptions/{}"), ("DELETE", "subscriptions/{}"),
    ("GET", "agents/{}"),
)  # fmt: skip
_READ_ON = {
    "jobs/{}/results": ("cursor", "limit"),
    "stream/{}": ("after",),
    "runs/{}/stream": ("after",),
    "tasks/{}": ("x",),
}

# The conditions that cursors of these lists belong to: a cursor is marked by nothing more than them and its token.
_CONDITIONS = {
    "events": "WorkflowType = 'EventDriven' AND Tenant = 'default'",
    "dead-letters": "WorkflowType IN ('RejectedEvent', 'EventDriven', 'EventReaction') AND Tenant = 'default' "
    "AND ExecutionStatus IN ('Failed', 'TimedOut', 'Terminated')",
    "webhooks/deliveries": "WorkflowType = 'WebhookDelivery' AND Tenant = 'default'",
}


async def run(case: Case) -> None:
    """One list, one real object at any endpoint, or one of many unusual addresses."""
    roll = case.random.random()
    if roll < 0.5:
        request = _list(case.random)
    elif roll < 0.54:
        await _paged(case)
        return
    elif roll < 0.9:
        request = _by_id(case)
    else:
        request = _odd_address(case.random)
    await case.ask(request, stream_seconds=0.3)


def _list(random: Random) -> Request:
    name = random.choice(list(_LISTS) if random.random() < 0.2 else _CHEAP)
    known = _LISTS[name]
    parameters = []
    for _ in range(random.choice((1, 1, 2, 3))):
        parameter = random.choice(known)
        parameters.append((parameter, _value_of(random, name, parameter)))
    if random.random() < 0.1:
        parameters.append(random.choice(parameters))
    if random.random() < 0.1:
        parameters.append((hostile.text(random)[:200], hostile.text(random)[:200]))
    return Request("GET", path(name) + b"?" + b"&".join(_written(random, *one) for one in parameters))


def _value_of(random: Random, name: str, parameter: str) -> str:
    if parameter == "cursor":
        return _cursor(random, name)
    if parameter in _TIMES and random.random() < 0.8:
        return random.choice(hostile.MOMENTS)
    if parameter in ("limit", "hours") and random.random() < 0.8:
        return random.choice(_NUMBERS)
    return random.choice((hostile.text(random)[:2_000], *_WORDS))


def _cursor(random: Random, name: str) -> str:
    # rarely: Temporal takes a token that is none for a fault of its own, and the SDK asks again for seconds
    if random.random() < 0.02 and name in _CONDITIONS:
        token = random.randbytes(random.choice((1, 8, 40)))
        mark = hashlib.sha256(_CONDITIONS[name].encode() + b"\x00" + token).digest()[:12]
        return base64.urlsafe_b64encode(mark + token).decode().rstrip("=")
    made = base64.urlsafe_b64encode(random.randbytes(random.choice((0, 3, 11, 12, 13, 60)))).decode()
    return random.choice((made, made.rstrip("="), made + "=", "A" * 10_000, "é", "%", hostile.text(random)[:500]))


def _written(random: Random, name: str, value: str) -> bytes:
    """A parameter, percent-encoded as it should be or not quite."""
    safe = "" if random.random() < 0.9 else ":+/'\"\\"
    parameter = f"{quote(name, safe='', errors='surrogatepass')}={quote(value, safe=safe, errors='surrogatepass')}"
    roll = random.random()
    if roll < 0.02:
        return parameter.encode() + random.choice(
            (b"%", b"%f", b"%zz", b"%ff%fe", b"%ed%a0%80", b"%00", b"=", b"&", b";")
        )
    return parameter.replace("%20", "+").encode() if roll < 0.3 else parameter.encode()


async def _paged(case: Case) -> None:
    """A real cursor, turned over to another list, cut, or with bits flipped."""
    random = case.random
    name = random.choice(("runs", "events", "dead-letters"))
    answer = await case.ask(Request("GET", path(name) + b"?limit=1"))
    body = answer.json
    cursor = body.get("nextCursor") if isinstance(body, dict) else None
    if not cursor:
        return
    other = random.choice(("runs", "events", "dead-letters", "webhooks/deliveries"))
    at = random.randrange(len(cursor))
    spoilt = random.choice(
        (
            cursor,
            cursor[:at],
            cursor[:at] + chr(ord(cursor[at]) ^ 1) + cursor[at + 1 :],
            cursor * 2,
            cursor.swapcase(),
        )
    )
    for target in (path(other) + b"?limit=1&cursor=", path(name) + b"?limit=2&cursor=", path(name) + b"?cursor="):
        await case.ask(Request("GET", target + quote(spoilt, safe="").encode()))


def _by_id(case: Case) -> Request:
    random = case.random
    method, template = random.choice(_BY_ID)
    known = case.campaign.known
    identity = random.choice(tuple(known.values()))
    if random.random() < 0.15:
        kind, _, rest = identity.partition("_")
        identity = random.choice(
            (f"task_{rest}", f"job_{rest}", f"str_{rest}", kind.upper() + "_" + rest, identity + "a")
        )
    target = path(template.format(identity))
    if random.random() < 0.1:
        target = path(template.format(quote(hostile.text(random)[:500], safe="", errors="surrogatepass")))
    if template in _READ_ON and random.random() < 0.5:
        target += f"?{random.choice(_READ_ON[template])}={quote(random.choice(_NUMBERS))}".encode()
    headers = (JSON, SHORT_WAIT) if random.random() < 0.2 else ()
    return Request(method, target, headers, b"{}" if headers and method == "POST" else b"")


def _odd_address(random: Random) -> Request:
    odd = (
        b"/", b"//", b"/api", b"/api/agent", b"/api/agent/", b"/api/agent//runs", b"/api/agent/runs/",
        b"/api/agent/runs/..", b"/api/agent/../../etc/passwd", b"/api/agent/%2e%2e/health/live",
        b"/api/agent/runs/%00", b"/api/agent/runs/%ff", b"/api/agent/runs/%2f", b"/api/agent/runs/" + b"a" * 5_000,
        b"/docs", b"/docs/../x", b"/openapi.json?x=%ff", b"/asyncapi.json", b"/health/ready", b"/health/live?%00",
        b"/API/AGENT/RUNS", b"/api/agent/runs;a=b", b"*", b"http://127.0.0.1/health/live",
        b"/api/agent/patterns/recommend?agent=%00&task=%27", b"/%", b"/?" + b"&" * 3_000,
    )  # fmt: skip
    method = random.choice(("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "PROPFIND", "QUERY"))
    headers = ((CONTENT_TYPE, b"application/json"),)
    return Request(method, random.choice(odd), headers, b"{}" if method in ("POST", "PUT", "PATCH") else b"")
