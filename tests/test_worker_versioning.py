"""Two builds of the workers whose workflows differ, under live runs: `sevenfold deploy` decides where new runs go."""

import asyncio
import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client

from bench.ports import free_port
from sevenfold.runtime.config.settings import Settings
from tests.support.events import event as new_event
from tests.support.events import published, tree
from tests.support.fork_server import run_sevenfold
from tests.support.processes import EmbeddedTemporalOnly, has_status, until
from tests.support.stack import ROOT, Sevenfold, environment, http_client, make_settings, sevenfold

GATED = """
import asyncio, pathlib
from sevenfold import AgentRequest

async def answer(request: AgentRequest) -> str:
    gate = pathlib.Path(str({**request.params, **request.data}["gate"]))
    while not gate.exists():
        await asyncio.sleep(0.05)
    return "through"
"""
AGENTS = """
[agents.gated]
kind = "python"
target = "gated:answer"

[agents.counted]
kind = "python"
target = "gated:answer"
max_concurrency = 100

[[subscriptions]]
name = "gated"
agent = "gated"
task = "wait"
filter = { exact = { type = "gated" } }
orderBy = "data.key"
"""

# The first statement of a run, by module. The second build waits for a timer before it: a run that changed its build
# would fail its workflow task.
FIRST_STATEMENTS = {
    "workflows/synchronous.py": "        return await self._agent_run.call_interactive()\n",
    "workflows/polling.py": "        return await self._agent_run.call_in_background()\n",
    "workflows/asynchronous_queue.py": "        if job.fan_out is None:\n",
    "workflows/events/event_reaction.py": "        try:\n            result = await self._agent_run",
}


def make_second_build(folder: Path) -> Path:
    """Copies the product and changes its workflows."""
    copy = folder / "second"
    ignored = shutil.ignore_patterns(".*", "__pycache__", "docs", "bench", "docker", "examples", "histories")
    shutil.copytree(ROOT, copy, symlinks=True, ignore=ignored)
    for name, statement in FIRST_STATEMENTS.items():
        text = (copy / name).read_text(encoding="utf-8")
        assert text.count(statement) == 1, name
        (copy / name).write_text(text.replace(statement, f"        await workflow.sleep(0.001)\n{statement}"))
    return copy


@dataclass
class Builds:
    """A Temporal server, an API, and workers of two builds."""

    settings: Settings
    address: str
    temporal: Client
    http: httpx.AsyncClient
    second: Path

    def deploy(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return run_sevenfold("deploy", *arguments, env=self.environment())

    def environment(self, **more: str) -> dict[str, str]:
        return environment(self.settings, TEMPORAL_ADDRESS=self.address, **more)

    async def change(self, *arguments: str) -> str:
        done = await asyncio.to_thread(self.deploy, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    async def status(self) -> dict[str, Any]:
        return dict(json.loads(await self.change("status", "--json")))

    async def build_status(self, build_id: str) -> dict[str, Any]:
        return next(one for one in (await self.status())["builds"] if one["buildId"] == build_id)

    def worker(self, build_id: str, *options: str, changed: bool = False) -> AbstractContextManager[Sevenfold]:
        """A worker of a build; `changed`: with the workflows of the second build."""
        source, env = self.second if changed else ROOT, {"SEVENFOLD_BUILD_ID": build_id}
        return sevenfold("worker", self.settings, *options, source=source, TEMPORAL_ADDRESS=self.address, **env)

    async def query(self) -> str:
        """Starts a run and waits for its answer; returns the build that it ended on."""
        answer = await self.http.post("/api/agent/query", json={"query": "hi", "agent": "echo"})
        assert answer.status_code == 200, answer.text
        return await self.build_of(answer.json()["queryId"])

    async def build_of(self, run_id: str) -> str:
        return await self.build_of_workflow(f"default:{run_id}")

    async def build_of_workflow(self, workflow_id: str) -> str:
        description = await self.temporal.get_workflow_handle(workflow_id).describe()
        return str(description.raw_description.workflow_execution_info.versioning_info.deployment_version.build_id)

    async def count_failed_tasks(self) -> int:
        """Counts the workflow tasks that failed, in all histories: a run on the wrong build fails its task."""
        count = 0
        async for one in self.temporal.list_workflows("TaskQueue STARTS_WITH 'sevenfold'"):
            handle = self.temporal.get_workflow_handle(one.id, run_id=one.run_id)
            async for found in handle.fetch_history_events():
                count += found.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED
        return count


@asynccontextmanager
async def running_builds(tmp_path: Path) -> AsyncIterator[Builds]:
    (tmp_path / "gated.py").write_text(GATED)
    dynamic = (
        'matching.wv.VersionDrainageStatusVisibilityGracePeriod="1s"',
        'matching.wv.VersionDrainageStatusRefreshInterval="1s"',
    )
    settings = make_settings(tmp_path, more_config=AGENTS, temporal_dynamic_config=dynamic)
    async with EmbeddedTemporalOnly(settings) as address, http_client(settings.port) as http:
        temporal = await Client.connect(address)
        with sevenfold("api", settings, TEMPORAL_ADDRESS=address):
            second = await asyncio.to_thread(make_second_build, tmp_path)
            builds = Builds(settings, address, temporal, http, second)
            await until(lambda: is_live(http), 30)
            yield builds


async def is_live(http: httpx.AsyncClient) -> bool:
    try:
        return (await http.get("/health/live")).status_code == 200
    except httpx.TransportError:
        return False


async def test_runs_end_on_their_build_while_builds_change(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    async with running_builds(tmp_path) as builds:
        with builds.worker("one", "--set-current") as first, ExitStack() as later:
            await until(lambda: "new runs go to this build" in first.output(), 30)
            assert await builds.query() == "one"
            started = await start_waiting_runs(builds, gate, "a")
            second = later.enter_context(builds.worker("two", changed=True))
            await until(lambda: "sevenfold deploy current two" in second.output(), 60)
            assert await builds.query() == "one", "a new build gets nothing by itself"
            await builds.change("ramp", "two", "--percent", "50")
            assert {await builds.query() for _ in range(20)} == {"one", "two"}
            assert await builds.change("rollback") == "New runs go to build one.\n", "it ends the ramp"
            assert await builds.change("current", "two") == "New runs go to build two.\n"
            await until(lambda: "new runs go to this build" in second.output(), 30)
            assert await builds.query() == "two"
            await until(lambda: has_moved(builds, "AgentLimits", "two"), 30)
            assert (await builds.build_status("one"))["status"] == "draining"
            later_runs = await start_waiting_runs(builds, gate, "b")
            gate.touch()
            for run_id in (*started, *later_runs):
                await until(lambda run_id=run_id: has_status(builds.http, run_id, "completed"), 60)
            assert {await builds.build_of(run_id) for run_id in started} == {"one"}
            assert {await builds.build_of(run_id) for run_id in later_runs} == {"two"}
            assert await builds.change("rollback") == "New runs go to build one.\n"
            assert await builds.query() == "one"
            await until(lambda: is_drained(builds, "two"), 60)
            assert await builds.count_failed_tasks() == 0


async def start_waiting_runs(builds: Builds, gate: Path, key: str) -> list[str]:
    """Runs that wait for the gate: at once, in the background, in a batch, with limits, as a reaction. Another event
    waits behind that one.
    """
    work = {"task": "wait", "agent": "gated", "params": {"gate": str(gate)}}
    query = {"query": "hi", "agent": "gated", "params": work["params"]}
    prefer = {"Prefer": "respond-async"}
    ids = [
        (await builds.http.post("/api/agent/query", json=query, headers=prefer)).json()["queryId"],
        (await builds.http.post("/api/agent/tasks", json=work)).json()["taskId"],
        (await builds.http.post("/api/agent/jobs", json=work)).json()["jobId"],
        (await builds.http.post("/api/agent/tasks", json={**work, "agent": "counted"})).json()["taskId"],
    ]
    sent = await published(builds.http, new_event("gated", {"key": key, "gate": str(gate)}))
    await published(builds.http, new_event("gated", {"key": key, "gate": str(gate)}))
    await until(lambda: has_reaction(builds.http, sent), 30)
    return [*ids, (await tree(builds.http, sent))["reactions"][0]["id"]]


async def has_reaction(http: httpx.AsyncClient, event_id: str) -> bool:
    return bool((await tree(http, event_id))["reactions"])


async def has_moved(builds: Builds, workflow_type: str, build_id: str) -> bool:
    """Whether the open entities of a type are on a build."""
    query = f"WorkflowType = '{workflow_type}' AND ExecutionStatus = 'Running'"
    ids = [one.id async for one in builds.temporal.list_workflows(query)]
    return bool(ids) and {await builds.build_of_workflow(one) for one in ids} == {build_id}


async def is_drained(builds: Builds, build_id: str) -> bool:
    found = await builds.build_status(build_id)
    return bool(found["status"] == "drained" and found["openWorkflows"] == 0)


async def test_runs_wait_for_a_worker_of_the_current_build_which_readiness_names(tmp_path: Path) -> None:
    async with running_builds(tmp_path) as builds:
        with builds.worker("one", "--set-current") as first:
            await until(lambda: "new runs go to this build" in first.output(), 30)
            assert await health(builds.http) == {"status": "ok", "temporal": "ok", "worker": "ok"}
            first.kill()
        with builds.worker("two") as second:
            await until(lambda: "sevenfold deploy current two" in second.output(), 30)
            await until(lambda: names_the_missing_workers(builds.http), 30)
            waiting = await builds.http.post("/api/agent/tasks", json={"task": "wait", "agent": "echo"})
            assert waiting.status_code == 202
            await until(lambda: has_backlog(builds.http), 30)
            metrics = (await builds.http.get("/metrics")).text
            assert 'sevenfold_queue_depth{kind="workflow",task_queue="sevenfold"} 1.0' in metrics
            refused = await asyncio.to_thread(builds.deploy, "current", "three")
            assert refused.returncode == 2
            assert "for build three" in refused.stderr
            assert "Builds with workers: two" in refused.stderr
            assert "Or: sevenfold deploy current two." in refused.stderr
            assert "Traceback" not in refused.stderr
            await builds.change("current", "two")
            await until(lambda: is_healthy(builds.http), 30)
            assert await builds.query() == "two"
        with builds.worker("one"):  # The run was pinned before its first task to no build, so any build may take it.
            run_id = waiting.json()["taskId"]
            await until(lambda: has_status(builds.http, run_id, "completed"), 60)


async def health(http: httpx.AsyncClient) -> dict[str, Any]:
    return dict((await http.get("/health/ready")).json())


async def is_healthy(http: httpx.AsyncClient) -> bool:
    return bool((await health(http))["status"] == "ok")


async def names_the_missing_workers(http: httpx.AsyncClient) -> bool:
    found = await health(http)
    return bool(found["status"] == "degraded" and "of build one" in found.get("build", ""))


async def has_backlog(http: httpx.AsyncClient) -> bool:
    queues = (await http.get("/api/agent/stats")).json()["queues"]
    return any(one["name"] == "sevenfold" and one["depth"] >= 1 for one in queues)


async def test_eager_starts_follow_the_current_build(tmp_path: Path) -> None:
    """An API with a worker of its own could start runs there, whatever build is current."""
    async with running_builds(tmp_path) as builds:
        both = builds.settings.model_copy(update={"port": free_port(), "set_current": True})
        env = {"TEMPORAL_ADDRESS": builds.address, "SEVENFOLD_BUILD_ID": "one"}
        with sevenfold("api", both, "--with-worker", **env) as first, builds.worker("two") as second:
            builds.http.base_url = f"http://127.0.0.1:{both.port}"
            await until(lambda: "new runs go to this build" in first.output(), 30)
            assert await builds.query() == "one"
            assert await was_eager(builds)
            await until(lambda: "sevenfold deploy current two" in second.output(), 30)
            await builds.change("current", "two")
            await until(lambda: "sevenfold deploy current one" in first.output(), 30)
            assert {await builds.query() for _ in range(5)} == {"two"}
            assert not await was_eager(builds)


async def was_eager(builds: Builds) -> bool:
    """Whether the next run is started eagerly."""
    answer = await builds.http.post("/api/agent/query", json={"query": "hi", "agent": "echo"})
    handle = builds.temporal.get_workflow_handle(f"default:{answer.json()['queryId']}")
    started = (await handle.fetch_history()).events[0].workflow_execution_started_event_attributes
    return bool(started.eager_execution_accepted)


MISTAKES = (
    (["current", ""], "it is empty"),
    (["current", "nobody", "--allow-no-workers"], "has no build nobody"),
    (["current"], "name a build id, or --unversioned"),
    (["current", "one", "--unversioned"], "name a build id, or --unversioned"),
    (["ramp", "", "--percent", "10", "--allow-no-workers"], "it is empty"),
    (["ramp", "nobody", "--percent", "10", "--allow-no-workers"], "has no build nobody"),
    (["ramp", "two", "--percent", "10"], "Build two is current"),
    (["ramp", "one", "--percent", "nan"], "less than or equal to 100"),
    (["ramp", "one", "--percent", "101"], "less than or equal to 100"),
    (["rollback", ""], "it is empty"),
    (["rollback", "nobody"], "has no build nobody"),
)


async def test_only_the_first_build_becomes_current_by_itself_and_rollbacks_can_be_repeated(tmp_path: Path) -> None:
    async with running_builds(tmp_path) as builds:
        with builds.worker("one", "--set-current") as first:
            await until(lambda: "new runs go to this build" in first.output(), 30)
            with builds.worker("two", "--set-current") as second:
                await until(lambda: "sevenfold deploy current two" in second.output(), 30)
                await builds.change("current", "two")
                assert await builds.change("rollback", "two") == "New runs go to build one.\n"
                nothing = await builds.change("rollback", "two")
                assert nothing == "Build two gets no new runs: nothing to do.\nNew runs go to build one.\n"
                await builds.change("current", "--unversioned", "--allow-no-workers")
            with builds.worker("two", "--set-current") as second:
                await until(lambda: "sevenfold deploy current two" in second.output(), 30)
                assert (await builds.status())["current"] is None, "somebody has decided otherwise"
                await builds.change("current", "two")
                assert (await builds.status())["current"] == "two"
                refused = await asyncio.to_thread(builds.deploy, "rollback")
                assert refused.returncode == 2
                assert "for workers without a build id" in refused.stderr
                for mistake, problem in MISTAKES:
                    refused = await asyncio.to_thread(builds.deploy, *mistake)
                    assert (refused.returncode, problem in refused.stderr) == (2, True), refused.stderr
                assert (await builds.status())["current"] == "two", "nothing was changed"
                other = {**builds.environment(), "SEVENFOLD_DEPLOYMENT_NAME": "other"}
                foreign = await asyncio.to_thread(run_sevenfold, "deploy", "status", env=other)
                assert (foreign.returncode, "SEVENFOLD_DEPLOYMENT_NAME=sevenfold" in foreign.stderr) == (2, True)


def test_a_build_that_cannot_be_current_is_refused(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    done = run_sevenfold("worker", "--set-current", env=environment(settings), cwd=tmp_path)
    assert done.returncode == 2
    assert "SEVENFOLD_BUILD_ID" in done.stderr
    for name, value in (("SEVENFOLD_BUILD_ID", "a:b"), ("SEVENFOLD_DEPLOYMENT_NAME", "a.b")):
        done = run_sevenfold("worker", env=environment(settings, **{name: value}), cwd=tmp_path)
        assert done.returncode == 2
        assert name in done.stderr
