"""The hand-written minimum of a callback: a workflow with two activities, the work and the POST.

What a beginner writes: nothing is logged, a receiver that fails is tried again by Temporal's default retries, and the
run is not over before the receiver has taken it. In a file of its own for the reason that `bare_workflow` gives.
"""

import json
import time
from datetime import timedelta

from temporalio import activity, workflow

with workflow.unsafe.imports_passed_through():
    import httpx

    from bench.webhook_receiver import SIGNED_BY
    from sevenfold.adapters.webhooks.signatures import sign_headers

_SECONDS = timedelta(seconds=10)
_http: list[httpx.AsyncClient] = []  # one for all calls, made by the first of them


@activity.defn
async def work() -> float:
    """An agent that completes at once and returns the time."""
    return time.time()


@activity.defn
async def call_back(url: str, run: str, done: float) -> None:
    """Post the result."""
    if not _http:
        _http.append(httpx.AsyncClient())
    await post_signed(_http[0], url, run, done)


async def post_signed(http: httpx.AsyncClient, url: str, run: str, done: float) -> None:
    """Post what Sevenfold would; raise `httpx.HTTPStatusError` if it was not taken."""
    result = {"response": "ok", "processingTime": "0.017s", "data": {"done": done}}
    body = json.dumps({"taskId": run, "status": "completed", "result": result}).encode()
    headers = sign_headers([SIGNED_BY], f"whk_{run}", int(time.time()), body)
    headers["Content-Type"] = "application/json"
    (await http.post(url, content=body, headers=headers)).raise_for_status()


@workflow.defn
class BareCallback:
    """The work, and then the POST."""

    @workflow.run
    async def run(self, url: str) -> None:
        """Return when the receiver has it."""
        done = await workflow.execute_activity(work, start_to_close_timeout=_SECONDS)
        run = workflow.info().workflow_id
        await workflow.execute_activity(call_back, args=[url, run, done], start_to_close_timeout=_SECONDS)
