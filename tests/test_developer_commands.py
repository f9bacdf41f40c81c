"""`sevenfold init`, `check`, `runs`, `trigger` and `dev --agent` as a developer runs them."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bench.ports import free_port, free_ports
from tests.support.fork_server import run_sevenfold
from tests.support.processes import until
from tests.support.stack import Stack, http_client, running_stack

API = "/api/agent"

SUBSCRIPTION = """
[[subscriptions]]
name = "welcome"
filter = { exact = { type = "customer.created" } }
agent = "echo"
task = "welcome"
[[subscriptions]]
name = "failing"
filter = { exact = { type = "customer.failed" } }
agent = "garbled"
task = "welcome"
max_attempts = 1
"""


@pytest.fixture(scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    async with running_stack(tmp_path_factory.mktemp("gateway"), more_config=SUBSCRIPTION) as running:
        yield running


async def command(stack: Stack, *arguments: str) -> subprocess.CompletedProcess[str]:
    url = f"http://127.0.0.1:{stack.settings.port}"
    return await asyncio.to_thread(run_sevenfold, *arguments, "--url", url)


def without_ours() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("SEVENFOLD_", "TEMPORAL_"))}


def in_folder(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    program = [str(Path(sys.executable).with_name("sevenfold")), *arguments]
    environment = without_ours() | variables
    return subprocess.run(
        program, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


async def query(stack: Stack, agent: str = "echo") -> str:
    answered = await stack.http.post(f"{API}/query", json={"query": "hi", "agent": agent})
    return str(answered.json()["queryId"])


async def test_runs_are_listed_and_shown(gateway: Stack) -> None:
    run_id = await query(gateway)

    async def listed() -> bool:
        return run_id in (await command(gateway, "runs")).stdout

    await until(listed, seconds=20)
    lines = (await command(gateway, "runs", "--json", "--agent", "echo")).stdout.splitlines()
    assert run_id in {json.loads(line)["id"] for line in lines}
    shown = await command(gateway, "runs", "show", run_id)
    assert shown.returncode == 0, shown.stderr
    assert "completed" in shown.stdout
    assert '"response": "hi"' in shown.stdout
    assert json.loads((await command(gateway, "runs", "show", run_id, "--json")).stdout)["id"] == run_id
    missing = await command(gateway, "runs", "show", "qry_" + "a" * 26)
    assert (missing.returncode, missing.stdout) == (2, "")
    assert "does not exist" in missing.stderr
    wrong = await command(gateway, "runs", "--status", "runing")
    assert wrong.returncode == 2
    assert "status" in wrong.stderr


async def test_open_runs_are_cancelled_by_filters(gateway: Stack) -> None:
    body = {"task": "cancel-me", "agent": "careful", "params": {"seconds": 60}}
    tasks = [(await gateway.http.post(f"{API}/tasks", json=body)).json()["taskId"] for _ in range(3)]

    async def all_listed() -> bool:
        lines = (await command(gateway, "runs", "--json", "--task", "cancel-me")).stdout.splitlines()
        return {json.loads(line)["id"] for line in lines} == set(tasks)

    await until(all_listed, seconds=20)
    refused = await command(gateway, "runs", "cancel", "--task", "cancel-me")
    assert refused.returncode == 2
    assert "3 runs fit, and nothing was done" in refused.stderr
    done = await command(gateway, "runs", "cancel", "--task", "cancel-me", "--yes")
    assert done.stdout.count("cancellation requested") == 3, done.stderr
    for task in tasks:
        shown = json.loads((await command(gateway, "runs", "show", task, "--json")).stdout)
        assert shown["status"] in ("cancelled", "processing")
    ended = await command(gateway, "runs", "cancel", await query(gateway))
    assert "completed" in ended.stdout, "a run that has ended stays as it is"
    nothing = await command(gateway, "runs", "cancel")
    assert (nothing.returncode, "Name runs" in nothing.stderr) == (2, True)


async def test_an_event_is_triggered_and_its_reactions_are_shown(gateway: Stack) -> None:
    done = await command(gateway, "trigger", "customer.created", "--data", '{"id": 1}', "--id", "e-1", "--wait")
    assert done.returncode == 0, done.stderr
    assert "accepted" in done.stdout
    assert "welcome: completed" in done.stdout
    again = await command(gateway, "trigger", "customer.created", "--data", '{"id": 1}', "--id", "e-1")
    assert "duplicate" in again.stdout
    failed = await command(gateway, "trigger", "customer.failed", "--wait", "--json")
    assert failed.returncode == 1
    assert json.loads(failed.stdout)["reactions"][0]["status"] == "failed"
    unmatched = await command(gateway, "trigger", "nobody.listens", "--wait")
    assert "No subscription matches nobody.listens" in unmatched.stdout
    bad = await command(gateway, "trigger", "customer.created", "--data", "{")
    assert (bad.returncode, "--data is not JSON" in bad.stderr) == (2, True)


async def test_statistics_are_printed_as_json(gateway: Stack) -> None:
    done = await command(gateway, "stats", "--json")
    assert json.loads(done.stdout)["queues"], done.stderr


def test_a_new_project_passes_its_check_and_its_test(tmp_path: Path) -> None:
    made = in_folder(tmp_path, "init", "shop")
    assert made.returncode == 0, made.stderr
    folder = tmp_path / "shop"
    assert ".sevenfold/" in (folder / ".gitignore").read_text()
    checked = in_folder(folder, "check")
    assert checked.returncode == 0, checked.stdout
    assert "agents: builtin, support (default)" in checked.stdout
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert tested.returncode == 0, tested.stdout
    (folder / "support.py").write_text("mine")
    again = in_folder(folder, "init")
    assert again.returncode == 2
    assert "already" in again.stderr
    assert (folder / "support.py").read_text() == "mine"


def findings(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    return {one["part"]: one for one in map(json.loads, done.stdout.splitlines())}


def test_check_names_what_is_wrong(tmp_path: Path) -> None:
    assert in_folder(tmp_path, "init").returncode == 0
    config = tmp_path / "sevenfold.toml"
    text = config.read_text()
    dead = f"127.0.0.1:{free_port()}"
    broker = f'\n[brokers.main]\nkind = "nats"\nurl = "nats://{dead}"\n'
    config.write_text(text.replace("support:answer", "support:anser") + broker)
    found = findings(in_folder(tmp_path, "check", "--json", TEMPORAL_ADDRESS=dead, SEVENFOLD_DATADIR="/x"))
    assert [part for part, one in found.items() if not one["ok"]] == ["settings", "temporal", "agents", "broker main"]
    assert "did you mean SEVENFOLD_DATA_DIR?" in found["settings"]["detail"]
    assert "has no attribute anser" in found["agents"]["detail"]
    assert "Check TEMPORAL_ADDRESS" in found["temporal"]["detail"]
    assert "tonic" not in found["temporal"]["detail"]
    (tmp_path / "support.py").write_text("import numpy_of_another_environment\n")
    config.write_text(text)
    imported = findings(in_folder(tmp_path, "check", "--json"))["agents"]
    assert not imported["ok"]
    assert 'set isolation = "process" and python' in imported["detail"]
    config.write_text("[agnets]\n")
    done = in_folder(tmp_path, "check", "--json")
    assert done.returncode == 1
    assert "line 1: agnets: there is no such key; did you mean agents?" in findings(done)["configuration"]["detail"]
    assert "must be a whole number" in in_folder(tmp_path, "check", SEVENFOLD_PORT="x").stdout


def test_check_whose_reader_leaves_early_has_not_failed(tmp_path: Path) -> None:
    assert in_folder(tmp_path, "init").returncode == 0
    command = f"'{Path(sys.executable).with_name('sevenfold')}' check | head -1; exit ${{PIPESTATUS[0]}}"
    for _ in range(3):
        done = subprocess.run(
            ["bash", "-c", command], cwd=tmp_path, env=without_ours(), capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == "ok   settings: all known\n"


async def test_check_of_a_running_gateway_finds_its_worker(gateway: Stack) -> None:
    done = await asyncio.to_thread(
        in_folder,
        gateway.settings.config.parent,
        "check",
        "--json",
        TEMPORAL_ADDRESS=f"127.0.0.1:{gateway.settings.temporal_port}",
        SEVENFOLD_CONFIG=str(gateway.settings.config),
        PYTHONPATH=str(Path(__file__).parents[1]),
    )
    found = findings(done)
    assert done.returncode == 0, done.stdout
    assert found["workers"]["detail"] == "1 poll sevenfold"
    assert found["clock"]["detail"] == "not behind Temporal's"
    assert found["search attributes"]["detail"] == "all there"


async def test_dev_needs_no_file_for_one_agent(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text("def answer(request):\n    return f'You asked: {request.query}'\n")
    port, temporal_port = free_ports(2)
    variables = {"SEVENFOLD_PORT": str(port), "SEVENFOLD_TEMPORAL_PORT": str(temporal_port)}
    program = [str(Path(sys.executable).with_name("sevenfold")), "dev", "--agent", "shop:answer"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(  # noqa: ASYNC220
            program, cwd=tmp_path, env=without_ours() | variables, stdout=log, stderr=log
        )
    try:
        await until(lambda: "is ready" in (tmp_path / "log").read_text(), seconds=60)
        async with http_client(port) as http:
            assert (await http.post(f"{API}/query", json={"query": "x"})).json()["response"] == "You asked: x"
            wrong = await http.post(f"{API}/query", json={"query": "x", "agent": "shp"})
            assert "did you mean shop?" in wrong.json()["detail"]
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait, 30)
    assert "Agents: simulator, builtin, shop (default)" in (tmp_path / "log").read_text()
    refused = await asyncio.to_thread(in_folder, tmp_path, "dev", "--agent", "shop")
    assert refused.returncode == 2
    assert "module:function" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "variables", "problem"),
    [
        (("runs",), {"SEVENFOLD_URL": "127.0.0.1:8000"}, "The gateway's URL is invalid"),
        (("runs",), {"SEVENFOLD_URL": "http://x..y"}, ""),
        (("runs",), {"SEVENFOLD_URL": "http://127.0.0.1:9\n"}, "The gateway's URL"),
        (("runs",), {"SEVENFOLD_URL": "http://127.0.0.1:9?x=1"}, "The gateway's URL"),
        (("runs",), {"SEVENFOLD_PORT": "abc"}, "The gateway's URL"),
        (("runs",), {"SEVENFOLD_API_KEY": "é"}, "SEVENFOLD_API_KEY is not an API key"),
        (("runs",), {"SEVENFOLD_API_KEY": "a\nb"}, "SEVENFOLD_API_KEY is not an API key"),
        (("runs",), {"SSL_CERT_FILE": "/no/file"}, "SSL_CERT_FILE=/no/file cannot be used"),
        (("trigger", "x", "--data", "NaN"), {}, "--data is not JSON"),
        (("trigger", "x", "--data", '"\\ud800"'), {}, "--data is not JSON"),
        (("trigger", "x", "--data", "[" * 3_000), {}, "--data is not JSON"),
        (("runs", "show", "../runs"), {}, "No gateway answers"),
        (("runs", "show", "a\nb"), {}, "No gateway answers"),
        (("init", "x" * 300), {}, "File name too long"),
        (("check",), {"SEVENFOLD_CONFIG": "x" * 300}, ""),
    ],
)
def test_odd_arguments_get_one_clear_sentence(
    tmp_path: Path, arguments: tuple[str, ...], variables: dict[str, str], problem: str
) -> None:
    gateway = {} if "SEVENFOLD_PORT" in variables else {"SEVENFOLD_URL": "http://127.0.0.1:9"}
    done = in_folder(tmp_path, *arguments, **(gateway | variables))
    output = done.stdout + done.stderr
    assert done.returncode in (1, 2), output
    assert problem in output
    assert "Traceback" not in output
    assert "a\nb" not in output.replace("\r", ""), "the key is not shown"


@pytest.mark.parametrize("text", ["x = " + "[" * 5_000, "x = " + "1" * 5_000])
def test_odd_files_are_one_clear_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "sevenfold.toml").write_text(text)
    done = in_folder(tmp_path, "check")
    assert done.returncode == 1
    assert "is not valid TOML" in done.stdout, done.stdout + done.stderr
