"""Schemathesis over /openapi.json, in a process of its own: `python -m bench.fuzz.schema PORT SEED CASES SECONDS`.

Optional: without schemathesis, or when its time is over, the campaign goes on without it. Each line of its output is
one exchange as JSON.
"""

import asyncio
import json
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

from bench.fuzz.campaign import Campaign, Case
from bench.fuzz.exchange import Answer, Request

GROUP = "schema"
# Streams that end when the reader leaves, and what would have the product call others.
_LEFT_OUT = (
    "/api/agent/events/stream",
    "/api/agent/stream/{stream_id}",
    "/api/agent/runs/{run_id}/stream",
    "/api/agent/analyze",
)
_WEBHOOK_FIELDS = ("webhookUrl", "webhookSecret", "previousWebhookSecret", "webhook_url", "webhook_secret")
_ROOT = Path(__file__).parent.parent.parent
_KEPT = 20_000


async def run_schemathesis(campaign: Campaign, cases: int, seconds: float) -> str | None:
    """Runs it and notes its exchanges. Returns why there were none, if so."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.fuzz.schema", str(campaign.port), str(campaign.seed), str(cases), str(seconds),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=_ROOT, limit=10_000_000,
    )  # fmt: skip
    try:
        async with asyncio.timeout(seconds + 60):
            output, errors = await process.communicate()
    except TimeoutError:
        process.kill()
        return "it did not end in time"
    exchanges = [json.loads(line) for line in output.splitlines()]
    for number, note in enumerate(exchanges):
        campaign.ledger.groups[GROUP].cases += 1
        _note(Case(campaign, GROUP, number, None), note)  # type: ignore[arg-type]
    return None if exchanges else errors.decode("utf-8", "replace").strip().splitlines()[-1:][0:1].__str__()


def _note(case: Case, note: dict[str, Any]) -> None:
    answer = Answer(
        status=note["status"],
        headers={"content-type": note["type"]},
        body=note["body"].encode(),
        cut=note["cut"],
        seconds=note["seconds"],
        failure=note["failure"],
    )
    request = Request(note["method"], note["target"].encode(), (), note["sent"].encode())
    case.note(request, answer, started_at=note["started_at"])


def _main(port: int, seed: int, cases: int, seconds: float) -> None:
    import schemathesis  # noqa: PLC0415  (optional)
    from hypothesis import HealthCheck, Phase, given, settings  # noqa: PLC0415
    from hypothesis import seed as seeded  # noqa: PLC0415

    warnings.simplefilter("ignore")
    base = f"http://127.0.0.1:{port}"
    schema = schemathesis.openapi.from_url(f"{base}/openapi.json")
    operations: list[Any] = [one.ok() for one in schema.get_all_operations()]  # type: ignore[union-attr]
    operations = [one for one in operations if one.path not in _LEFT_OUT]
    until = time.monotonic() + seconds

    for operation in operations:
        left = (until - time.monotonic()) / seconds
        if left <= 0:
            break

        @seeded(seed)
        @settings(
            max_examples=max(1, cases // len(operations)),
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def exchange(case: Any) -> None:
            if time.monotonic() < until:
                print(json.dumps(_exchanged(case, base)), flush=True)

        exchange()


def _exchanged(case: Any, base: str) -> dict[str, Any]:
    if isinstance(case.body, dict):
        for name in _WEBHOOK_FIELDS:
            case.body.pop(name, None)
    started_at = time.time()
    note: dict[str, Any] = {"status": None, "type": "", "body": "", "cut": False, "failure": None}
    try:
        response = case.call(base_url=base, timeout=31)
        body = response.text
        media_type = response.headers.get("content-type", [""])[0]
        note |= {"status": response.status_code, "type": media_type, "body": body[:_KEPT], "cut": len(body) > _KEPT}
    except Exception as error:  # whatever its client cannot send or read
        note["failure"] = f"{type(error).__name__}: {error}"[:200]
        if "timeout" not in type(error).__name__.lower():
            note["status"] = 0
    sent = "" if "NotSet" in type(case.body).__name__ else str(case.body)[:300]
    target = case.formatted_path if hasattr(case, "formatted_path") else case.path
    query = f"?{case.query}"[:300] if case.query else ""
    return {
        **note,
        "started_at": started_at,
        "seconds": time.time() - started_at,
        "method": case.method.upper(),
        "target": f"{target}{query}",
        "sent": sent.encode("utf-8", "replace").decode(),
    }


if __name__ == "__main__":
    _main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
