"""Runs whose stored input or result was removed or damaged."""

import shutil
from pathlib import Path

import pytest

from tests.support.processes import EmbeddedTemporalOnly, has_status, is_live, until
from tests.support.stack import http_client, make_settings, running_stack, sevenfold

LARGE = "x" * 300_000


@pytest.mark.parametrize("damage", ["removed", "cut", "changed"])
async def test_run_with_a_lost_input_payload_fails(tmp_path: Path, damage: str) -> None:
    settings = make_settings(tmp_path)
    async with EmbeddedTemporalOnly(settings) as address:
        more = {"TEMPORAL_ADDRESS": address}
        with sevenfold("api", settings, **more) as api:
            async with http_client(settings.port) as http:
                await until(lambda: is_live(http, api), 30)
                body = {"task": "work", "agent": "echo", "params": {"text": LARGE}}
                run_id = (await http.post("/api/agent/tasks", json=body)).json()["taskId"]
                (settings.data_dir / "payloads" / "aa").mkdir(parents=True, exist_ok=True)
                for path in (settings.data_dir / "payloads").glob("??/*"):
                    _damage(path, damage)
                with sevenfold("worker.py", settings, **more):
                    await until(lambda: has_status(http, run_id, "failed"), 40)
                run = (await http.get(f"/api/agent/runs/{run_id}")).json()
                assert run["error"]["code"] == "PayloadLost"


def _damage(path: Path, how: str) -> None:
    match how:
        case "removed":
            path.unlink()
        case "cut":
            path.write_bytes(path.read_bytes()[:1_000])
        case "changed":
            path.write_bytes(path.read_bytes().replace(b"xxxx", b"yyyy"))


async def test_lost_result_payload_is_answered_410(tmp_path: Path) -> None:
    async with running_stack(tmp_path) as stack:
        answer = await stack.query(LARGE, agent="echo")
        run_id = answer.json()["queryId"]
        shutil.rmtree(stack.settings.data_dir / "payloads")
        (stack.settings.data_dir / "payloads" / "aa").mkdir(parents=True)
        for path in (f"runs/{run_id}", f"runs/{run_id}/stream"):
            answer = await stack.http.get(f"/api/agent/{path}")
            assert answer.status_code == 410, answer.text
            assert answer.json()["type"] == "urn:sevenfold:problem:payload-lost"
        assert (await stack.http.get("/api/agent/runs")).status_code == 200
