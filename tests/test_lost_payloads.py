"""Runs whose stored input or result was removed or damaged."""

from pathlib import Path

from tests.support.processes import EmbeddedTemporalOnly, has_status, is_live, until
from tests.support.stack import Stack, http_client, make_settings, sevenfold

LARGE = "x" * 300_000


async def test_runs_with_lost_input_payloads_fail(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    payloads = settings.data_dir / "payloads"
    async with EmbeddedTemporalOnly(settings) as address:
        more = {"TEMPORAL_ADDRESS": address}
        with sevenfold("api", settings, **more) as api:
            async with http_client(settings.port) as http:
                await until(lambda: is_live(http, api), 30)
                runs: dict[str, str] = {}
                for damage in ("removed", "cut", "changed"):
                    before = set(payloads.glob("tenants/*/??/*"))
                    body = {"task": "work", "agent": "echo", "params": {"text": damage + LARGE}}
                    runs[damage] = (await http.post("/api/agent/tasks", json=body)).json()["taskId"]
                    (stored,) = set(payloads.glob("tenants/*/??/*")) - before
                    _damage(stored, damage)
                with sevenfold("worker.py", settings, **more):
                    for run_id in runs.values():
                        await until(lambda run_id=run_id: has_status(http, run_id, "failed"), 40)
                errors = {
                    damage: (await http.get(f"/api/agent/runs/{run_id}")).json()["error"]["code"]
                    for damage, run_id in runs.items()
                }
                assert errors == dict.fromkeys(runs, "PayloadLost")


def _damage(path: Path, how: str) -> None:
    match how:
        case "removed":
            path.unlink()
        case "cut":
            path.write_bytes(path.read_bytes()[:1_000])
        case "changed":
            path.write_bytes(path.read_bytes().replace(b"xxxx", b"yyyy"))


async def test_lost_result_payload_is_answered_410(stack: Stack) -> None:
    text = f"lost {LARGE}"
    run_id = (await stack.query(text, agent="echo")).json()["queryId"]
    for stored in (stack.settings.data_dir / "payloads").glob("tenants/*/??/*"):
        if text.encode() in stored.read_bytes():
            stored.unlink()
    for path in (f"runs/{run_id}", f"runs/{run_id}/stream"):
        answer = await stack.http.get(f"/api/agent/{path}")
        assert answer.status_code == 410, answer.text
        assert answer.json()["type"] == "/problems/payload-lost"
    assert (await stack.http.get("/api/agent/runs")).status_code == 200
