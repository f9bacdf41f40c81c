"""A patient client of all APIs: it sends again, to any of them, until it has an answer."""

import asyncio
import random
import time
from collections.abc import Mapping
from typing import Any

import httpx

from bench.faults.ledger import Ledger, LostError, RefusedError, Run

API = "/api/agent"
KEY = "Idempotency-Key"

# This share of starts is sent to two APIs at the same moment, under one key.
TWINS = 0.2

# An API answers after 30 s at the latest, even where Temporal hangs.
_TIMEOUT = 40.0
_UNKNOWN_SECONDS = 6.0
_OPEN = ("queued", "processing")


class ApiClient:
    """Clients of all API processes."""

    def __init__(self, ports: list[int], ledger: Ledger, rng: random.Random) -> None:
        """Of the processes that listen at these ports of the loopback."""
        self.ledger = ledger
        self.rng = rng
        self.clients = [
            httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{port}{API}",
                timeout=_TIMEOUT,
                trust_env=False,
                limits=httpx.Limits(max_connections=500, max_keepalive_connections=100),
            )
            for port in ports
        ]

    async def close(self) -> None:
        """Close the connections."""
        for client in self.clients:
            await client.aclose()

    def any(self) -> httpx.AsyncClient:
        """One of them, as a load balancer would choose."""
        return self.rng.choice(self.clients)

    async def once(self, method: str, path: str, index: int | None = None, **request: Any) -> httpx.Response | None:
        """Send a request once; None if the connection brought no answer."""
        client = self.any() if index is None else self.clients[index]
        where = f"{method} /{path.split('/')[1]}"
        try:
            answer = await client.request(method, path, **request)
        except httpx.TransportError as error:
            self.ledger.report_odd(where, type(error).__name__)
            return None
        if answer.status_code >= 400:
            self.ledger.report_odd(where, outcome_of(answer))
        return answer

    async def start(
        self, run: Run, path: str, body: Mapping[str, Any], name: str, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """Send a start, now and then to two APIs at once, until it is acknowledged; `name` is that of the id.

        Raises LostError, DoubledError, RefusedError.
        """
        twins = self.rng.random() < TWINS
        apis: list[int | None] = [0, len(self.clients) - 1] if twins else [None]
        sending = (self._acknowledged(run, path, body, headers or {}, index) for index in apis)
        answers = await asyncio.gather(*sending, return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
            run.know(answer.json()[name])
        return answers[0]  # type: ignore[return-value]

    async def _acknowledged(
        self, run: Run, path: str, body: Mapping[str, Any], headers: Mapping[str, str], index: int | None
    ) -> httpx.Response:
        while True:
            answer = await self.once("POST", path, index, json=body, headers={KEY: run.key, **headers})
            if answer is not None and answer.is_success:
                return answer
            check_refusal(run, answer)
            index = None
            await asyncio.sleep(self.rng.uniform(0.1, 0.6))

    async def read(self, path: str, headers: Mapping[str, str] | None = None, **params: Any) -> httpx.Response:
        """Read something that is there, until it can be read; 304 is an answer too.

        Raises LostError if it is answered 404 for a while, RefusedError.
        """
        unknown_since = 0.0
        while True:
            answer = await self.once("GET", path, params=params, headers=headers)
            if answer is not None and (answer.is_success or answer.status_code == 304):
                return answer
            if answer is not None and answer.status_code == 404:
                unknown_since = unknown_since or time.monotonic()
                if time.monotonic() - unknown_since > _UNKNOWN_SECONDS:
                    raise LostError(f"unknown: GET {path}")
            elif answer is not None and 400 <= answer.status_code < 500 and answer.status_code != 429:
                raise RefusedError(f"GET {path}: {answer.text[:300]}")
            await asyncio.sleep(self.rng.uniform(0.2, 0.6))

    async def ended(self, run: Run) -> dict[str, Any]:
        """Read a run until it has completed; return it. Raises LostError if it ended otherwise or has no result."""
        pause = 0.1
        while True:
            found = dict((await self.read(f"/runs/{run.id}")).json())
            if found["status"] not in _OPEN:
                break
            await asyncio.sleep(pause)
            pause = min(1.0, pause * 1.5)
        if found["status"] != "completed":
            raise LostError(f"ended as {found['status']}: {found['error']}")
        if not found["result"]:
            raise LostError("completed without its result")
        run.response = str(found["result"]["response"])
        return found


def check_refusal(run: Run, answer: httpx.Response | None) -> None:
    """Raise what a start's answer means, if it is no use to send it again."""
    if answer is None:
        return
    problem = problem_in(answer)
    if problem.get("runId") and problem.get("code"):
        run.know(problem["runId"])
        raise LostError(f"ended as failed: {problem['code']}, {problem['detail']}")
    if 400 <= answer.status_code < 500 and answer.status_code not in (408, 425, 429):
        raise RefusedError(f"{outcome_of(answer)}: {answer.text[:300]}")


def problem_in(answer: httpx.Response) -> dict[str, Any]:
    """The problem document of an answer, or an empty one."""
    return dict(answer.json()) if "problem+json" in answer.headers.get("content-type", "") else {}


def outcome_of(answer: httpx.Response) -> str:
    """An error in two words."""
    return f"{answer.status_code} {problem_in(answer).get('type', '').rpartition(':')[2] or answer.text[:60]}"
