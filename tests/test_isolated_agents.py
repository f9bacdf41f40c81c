"""Python agents in child processes: what goes wrong in one hurts one call only."""

import ast
import asyncio
import json
import os
import sys
import venv
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from sevenfold.adapters.agents.isolated.agent import IsolatedAgent
from sevenfold.adapters.agents.isolated.process import ChildTerms
from sevenfold.adapters.agents.loading import AgentLoadError, load_agents
from sevenfold.contracts.agents.errors import AgentFailed, AgentRateLimited
from sevenfold.contracts.agents.interface import AgentContext, AgentEvent, AgentRequest, Delta, Progress, Reply
from sevenfold.contracts.config.schema import SevenfoldConfig
from tests.support.processes import until
from tests.support.stack import ROOT, http_client, make_settings, running_stack, sevenfold, until_ready

AGENTS = """
import asyncio, ctypes, os, sys, threading, time

CALLS = [0]


def printing(request, context):
    CALLS[0] += 1
    print("a line of", request.run_id)
    return {"response": request.query, "pid": os.getpid(), "calls": CALLS[0], "left": context.remaining_seconds() > 1}


async def words(request):
    for word in (request.query or "").split():
        yield word + " "
    yield {"response": "done"}


def plain_words(request):
    for word in (request.query or "").split():
        yield word + " "
    return "done"


def fail(request):
    how = request.query
    if how == "exit": os._exit(3)
    if how == "sys.exit": sys.exit(4)
    if how == "segfault": ctypes.string_at(0)
    if how == "memory": return str(len(bytearray(2_000_000_000)))
    if how == "json": return {"x": object()}
    if how == "nan": return {"x": float("nan")}
    if how == "bug": return undefined_name
    if how == "stop": raise StopIteration
    if how == "group": raise ExceptionGroup("several", [ValueError(1), TypeError(2)])
    return "fine"


async def block(request):
    time.sleep(600)


async def wait(request, context):
    open("waiting", "w").close()
    try:
        await asyncio.sleep(600)
    finally:
        open("cleaned", "w").close()


def leak(request):
    threading.Thread(target=time.sleep, args=(600,)).start()
    return "leaked"


def endless(request):
    while True:
        yield "x" * 10_000
"""
TYPED = """
from sevenfold import AgentContext, AgentRateLimited, AgentRequest, Delta, Progress, Reply


async def typed(request: AgentRequest, context: AgentContext):
    assert isinstance(request, AgentRequest) and isinstance(context, AgentContext)
    if request.query == "limited":
        raise AgentRateLimited("slow down", retry_after=2)
    yield Progress(percent=50, note="half")
    yield Delta(text="a")
    yield Reply(response="a", confidence=0.5)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "isolated_agents.py").write_text(AGENTS, encoding="utf-8")
    (tmp_path / "typed_agents.py").write_text(TYPED, encoding="utf-8")
    return tmp_path


def load(folder: Path, name: str, module: str = "isolated_agents", **changes: Any) -> IsolatedAgent:
    section = {"kind": "python", "target": f"{module}:{name}", "isolation": "process", **changes}
    config = SevenfoldConfig.model_validate({"agents": {"one": section}})
    agent = load_agents(config.direct_agents, folder, {}).get("one")
    assert isinstance(agent, IsolatedAgent)
    return agent


def call(agent: IsolatedAgent, query: str = "hi", seconds: float = 30) -> AsyncIterator[AgentEvent]:
    context = AgentContext(datetime.now(UTC) + timedelta(seconds=seconds))
    return agent.run(AgentRequest(run_id="qry_1", task="query", query=query), context)


async def answer(agent: IsolatedAgent, query: str = "hi") -> list[AgentEvent]:
    return [event async for event in call(agent, query)]


async def data(agent: IsolatedAgent) -> dict[str, Any]:
    (reply,) = await answer(agent)
    assert isinstance(reply, Reply)
    return dict(reply.data or {})


async def test_calls_share_a_process_until_max_calls(folder: Path) -> None:
    agent = load(folder, "printing", max_calls=2)
    try:
        found = [await data(agent) for _ in range(4)]
    finally:
        await agent.aclose()
    assert [one["calls"] for one in found] == [1, 2, 1, 2]
    assert len({one["pid"] for one in found}) == 2
    assert os.getpid() not in {one["pid"] for one in found}
    assert all(one["left"] for one in found)


async def test_calls_at_once_have_processes_of_their_own(folder: Path) -> None:
    agent = load(folder, "printing", idle_processes=1)
    try:
        found = await asyncio.gather(*(data(agent) for _ in range(3)))
        assert len({one["pid"] for one in found}) == 3
        again = await data(agent)
        assert again["calls"] == 2, "one waited"
    finally:
        await agent.aclose()


@pytest.mark.parametrize("name", ["words", "plain_words"])
async def test_text_streams_without_sevenfold_in_the_environment(folder: Path, name: str) -> None:
    agent = load(folder, name)
    try:
        assert await answer(agent, "one two") == [Delta(text="one "), Delta(text="two "), Reply(response="done")]
    finally:
        await agent.aclose()


async def test_an_agent_with_sevenfold_gets_and_sends_its_types(folder: Path) -> None:
    agent = load(folder, "typed", "typed_agents", env={"PYTHONPATH": str(ROOT)})
    try:
        events = await answer(agent)
        assert events == [Progress(percent=50, note="half"), Delta(text="a"), Reply(response="a", confidence=0.5)]
        with pytest.raises(AgentRateLimited) as raised:
            await answer(agent, "limited")
        assert (raised.value.detail, raised.value.retry_after) == ("slow down", 2)
    finally:
        await agent.aclose()


@pytest.mark.parametrize(
    ("how", "kind", "text"),
    [
        ("exit", AgentFailed, "ended with exit code 3"),
        ("sys.exit", Exception, "4 .at isolated_agents.py"),
        ("segfault", AgentFailed, "ended with SIGSEGV"),
        ("memory", MemoryError, "isolated_agents.py"),
        ("json", TypeError, "not JSON serializable"),
        ("nan", ValueError, "not JSON compliant"),
        ("bug", NameError, "name 'undefined_name' is not defined .at isolated_agents.py:33."),
        ("stop", RuntimeError, "StopIteration"),
        ("group", Exception, "several .2 sub-exceptions. .at isolated_agents.py"),
    ],
)
async def test_a_failing_agent_fails_one_call(folder: Path, how: str, kind: type[Exception], text: str) -> None:
    agent = load(folder, "fail", memory_mb=500)
    try:
        with pytest.raises(kind, match=text):
            await answer(agent, how)
        assert await answer(agent, "nothing") == [Reply(response="fine")]
    finally:
        await agent.aclose()


@pytest.mark.parametrize("name", ["block", "wait"])
async def test_a_cancelled_call_ends_and_the_next_one_works(folder: Path, name: str) -> None:
    agent = load(folder, name)
    calling = asyncio.create_task(answer(agent))
    await until(lambda: name == "block" or (folder / "waiting").exists(), seconds=20)
    await asyncio.sleep(1)
    calling.cancel()
    await asyncio.wait({calling}, timeout=9)
    assert calling.cancelled()
    assert (folder / "cleaned").exists() == (name == "wait"), "a polite agent cleans up"
    await agent.aclose()
    assert not children()


def children() -> list[str]:
    pid = os.getpid()
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [one for one in found if "isolated/child.py" in Path(f"/proc/{one}/cmdline").read_text()]


async def test_a_consumer_that_stops_reading_holds_the_agent_back(folder: Path) -> None:
    agent = load(folder, "endless", memory_mb=200)
    events = call(agent)
    for _ in range(10):
        assert await anext(events) == Delta(text="x" * 10_000)
    await asyncio.sleep(1)
    await events.aclose()  # type: ignore[attr-defined]
    await agent.aclose()
    assert not children()


async def test_a_leaked_thread_ends_with_its_process(folder: Path) -> None:
    agent = load(folder, "leak")
    assert await answer(agent) == [Reply(response="leaked")]
    await agent.aclose()
    assert not children()


async def test_another_environment_has_its_own_packages(folder: Path) -> None:
    """Neither Sevenfold nor what it needs is there; a module of the same name as ours is."""
    venv.create(folder / "other", with_pip=False)
    packages = next((folder / "other").glob("lib/python*/site-packages"))
    (packages / "pydantic.py").write_text("VERSION = 'another one'\n")
    (folder / "own.py").write_text("import pydantic\n\n\ndef version(request):\n    return pydantic.VERSION\n")
    agent = load(folder, "version", "own", python="other/bin/python")
    try:
        assert await answer(agent) == [Reply(response="another one")]
    finally:
        await agent.aclose()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"target": "isolated_agents:nothing"}, "has no attribute 'nothing'"),
        ({"target": "broken:agent"}, "SyntaxError"),
        ({"python": "no/such/python"}, "is no program"),
        ({"python": "no-such-python"}, "is no program"),
        ({"working_directory": "nowhere"}, "there is no directory"),
    ],
)
def test_what_cannot_be_loaded_is_named_at_the_start(folder: Path, changes: dict[str, Any], problem: str) -> None:
    (folder / "broken.py").write_text("def agent(:\n")
    with pytest.raises(AgentLoadError, match=problem):
        load(folder, "printing", **changes)


def test_another_version_of_sevenfold_is_a_clear_error(folder: Path) -> None:
    (folder / "old").mkdir()
    (folder / "old" / "sevenfold.py").write_text("__version__ = '0.0.1'\n")
    (folder / "imports.py").write_text("import sevenfold\n\n\ndef agent(request):\n    return 'x'\n")
    terms = ChildTerms("a", "imports:agent", folder, sys.executable, folder, {"PYTHONPATH": str(folder / "old")}, 0)
    assert "has sevenfold 0.0.1, the worker" in terms.check()


def test_settings_of_processes_need_isolation() -> None:
    with pytest.raises(ValueError, match='memory_mb belongs to isolation = "process"'):
        SevenfoldConfig.model_validate({"agents": {"a": {"kind": "python", "target": "a:b", "memory_mb": 100}}})


CONFIG = '[agents.{name}]\nkind = "python"\ntarget = "isolated_agents:{name}"\nisolation = "process"\n'


async def test_isolated_agent_streams_and_is_cancelled_through_the_gateway(folder: Path) -> None:
    more = "".join(CONFIG.format(name=name) for name in ("words", "wait", "block"))
    async with running_stack(folder, more_config=more) as stack:
        found = await stack.http.post("/api/agent/query", json={"query": "one two", "agent": "words"})
        assert found.json()["response"] == "done", found.text
        late = await stack.http.post("/api/agent/query", json={"query": "x", "agent": "block", "timeout": 2})
        assert late.status_code == 504, "a blocked loop is the child's own"
        body = {"task": "work", "agent": "wait", "params": {"a": 1}}
        task = (await stack.http.post("/api/agent/tasks", json=body)).json()["taskId"]
        await until(lambda: (folder / "waiting").exists(), seconds=20)
        assert (await stack.http.post(f"/api/agent/runs/{task}/cancel")).status_code == 202
        await until(lambda: (folder / "cleaned").exists(), seconds=20)


async def test_prints_are_logs_and_a_killed_worker_leaves_no_child_behind(folder: Path) -> None:
    more = "".join(CONFIG.format(name=name) for name in ("printing", "block"))
    settings = make_settings(folder, more_config=more, log_level="info")
    with sevenfold("dev", settings) as process:
        await until_ready(settings.port, process=process)
        async with http_client(settings.port) as http:
            answered = await http.post("/api/agent/query", json={"query": "x", "agent": "printing"})
            run_id = answered.json()["queryId"]
            lines = [json.loads(line) for line in process.output().splitlines() if line.startswith("{")]
            (printed,) = [line for line in lines if line["event"] == "agent output"]
            assert (printed["line"], printed["run_id"]) == (f"a line of {run_id}", run_id)
            body = {"task": "work", "agent": "block", "params": {"a": 1}}
            assert (await http.post("/api/agent/tasks", json=body)).status_code == 202

            def found() -> list[int]:
                of = Path("/proc").glob("[0-9]*/cmdline")
                return [int(one.parent.name) for one in of if str(folder) in _read(one) and "child.py" in _read(one)]

            await until(found, seconds=30)
            process.kill()
            await until(lambda: not found(), seconds=10)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


# Of the modules that these files import: datetime, typing, asyncio, enum, itertools, contextlib.
_NEWER_THAN_3_9 = {"UTC", "Self", "StrEnum", "TypeAlias", "ParamSpec", "TaskGroup", "timeout", "pairwise", "aclosing"}
_IN_CHILDREN = (
    "adapters/agents/isolated/child.py",
    "adapters/agents/isolated/child_durable.py",
    "contracts/agents/step_runner.py",
    "contracts/agents/asking.py",
)


@pytest.mark.parametrize("name", _IN_CHILDREN)
def test_what_children_execute_is_python_3_9(name: str) -> None:
    """Their interpreters may be older than the worker's, which no linter here checks."""
    tree = ast.parse((ROOT / name).read_text(encoding="utf-8"), feature_version=(3, 9))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert "annotations" in imported
    assert not imported & _NEWER_THAN_3_9
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Match | ast.TryStar)]
