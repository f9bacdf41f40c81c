"""The suite of OpenAI's API: the same agent behind `/v1` and behind the gateway's own endpoints, in turn."""

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from bench.sevenfold import BODY, Sevenfold
from bench.suite import Aim, Suite

CALLS, STREAMS, UNCOUNTED = 150, 60, 10

TIMES = " \N{MULTIPLICATION SIGN}"
_MESSAGES = [{"role": "user", "content": "hi"}]
_PARAMS = {"seconds": 0.03, "steps": 3, "text": "three pieces of some text"}

# What is streamed, and how a line shows that it has the first text.
_STREAMED: dict[str, tuple[str, dict[str, object], Callable[[str], bool]]] = {
    "stream": (
        "/api/agent/stream",
        {"query": "hi", "agent": "simulator", "params": _PARAMS},
        lambda line: '"chunk"' in line,
    ),
    "chat": (
        "/v1/chat/completions",
        {"model": "simulator", "messages": _MESSAGES, "stream": True, "sevenfold": {"params": _PARAMS}},
        lambda line: line.startswith("data: ") and bool(json.loads(line[6:])["choices"][0]["delta"]["content"]),
    ),
    "responses": (
        "/v1/responses",
        {"model": "simulator", "input": "hi", "stream": True, "sevenfold": {"params": _PARAMS}},
        lambda line: line == "event: response.output_text.delta",
    ),
}


async def _openai(sevenfold: Sevenfold, work: Path) -> list[float]:
    query, chat, responses = await _answers(sevenfold)
    first, first_chat, first_responses = await _first_texts(sevenfold.ports.http)
    return [chat / query, responses / query, query, first_chat / first, first_responses / first, first]


async def _answers(sevenfold: Sevenfold) -> list[float]:
    """The medians in ms of `/query`, Chat Completions and Responses."""
    bodies = {
        "/api/agent/query": BODY,
        "/v1/chat/completions": json.dumps({"model": "instant", "messages": _MESSAGES}).encode(),
        "/v1/responses": json.dumps({"model": "instant", "input": "hi"}).encode(),
    }
    times: dict[str, list[float]] = {path: [] for path in bodies}
    for number in range(CALLS + UNCOUNTED):  # in turn, so that whatever the machine does meets all
        for path, body in bodies.items():
            started_at = time.perf_counter()
            await sevenfold.http_client.post(path, body)
            if number >= UNCOUNTED:
                times[path].append((time.perf_counter() - started_at) * 1000)
    return [statistics.median(one) for one in times.values()]


async def _first_texts(port: int) -> list[float]:
    """The medians in ms from the request to the first text of a stream."""
    times: dict[str, list[float]] = {name: [] for name in _STREAMED}
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:
        for number in range(STREAMS + UNCOUNTED):
            for name, (path, body, has_text) in _STREAMED.items():
                taken = await _first_text(http, path, body, has_text)
                if number >= UNCOUNTED:
                    times[name].append(taken)
    return [statistics.median(one) for one in times.values()]


async def _first_text(
    http: httpx.AsyncClient, path: str, body: dict[str, object], has_text: Callable[[str], bool]
) -> float:
    started_at = time.perf_counter()
    taken: float | None = None
    async with http.stream("POST", path, json=body) as answer:
        answer.raise_for_status()
        async for line in answer.aiter_lines():
            if taken is None and has_text(line):
                taken = (time.perf_counter() - started_at) * 1000
    if taken is None:
        raise RuntimeError(f"{path} sent no text")
    return taken


OPENAI = Suite(
    "openai",
    [
        Aim("`/v1/chat/completions` against `/query`, p50", TIMES, 1.15, digits=3),
        Aim("`/v1/responses` against `/query`, p50", TIMES, 1.15, digits=3),
        Aim("p50 of `/query`", " ms", digits=2),
        Aim("first text of a streamed `/v1/chat/completions` against `/stream`, p50", TIMES, 1.15, digits=3),
        Aim("first text of a streamed `/v1/responses` against `/stream`, p50", TIMES, 1.15, digits=3),
        Aim("first text of `/stream`, p50", " ms", digits=2),
    ],
    _openai,
)
