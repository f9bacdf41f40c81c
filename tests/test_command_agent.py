"""Agents that are programs: one process per call, whatever becomes of it."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from sevenfold.adapters.agents.command_agent import CommandAgent
from sevenfold.adapters.agents.loading import AgentLoadError, load_agents
from sevenfold.contracts.agents.errors import AgentError, ErrorCode
from sevenfold.contracts.agents.interface import AgentContext, AgentEvent, AgentRequest, Delta, Progress, Reply
from sevenfold.contracts.config.schema import SevenfoldConfig
from tests.support.processes import until
from tests.support.stack import http_client, make_settings, running_stack, sevenfold, until_ready

HEAD = "import json, os, subprocess, sys, time\nrequest = json.load(sys.stdin)\n"


def agent(directory: Path, program: str, **env: str) -> CommandAgent:
    (directory / "program.py").write_text(HEAD + program, encoding="utf-8")
    return CommandAgent([sys.executable, "program.py"], directory, env)


def call(one: CommandAgent, query: str = "hi") -> AsyncIterator[AgentEvent]:
    context = AgentContext(datetime.now(UTC) + timedelta(seconds=30))
    return one.run(AgentRequest(run_id="qry_1", task="query", query=query), context)


async def answer(one: CommandAgent, query: str = "hi") -> list[AgentEvent]:
    return [event async for event in call(one, query)]


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ('print(json.dumps({"response": request["query"], "score": 3}))', Reply(response="hü", data={"score": 3})),
        ('print(json.dumps({"found": [1]}, indent=2))', Reply(data={"found": [1]})),
        ('print(json.dumps("just text"))', Reply(response="just text")),
        ('print(json.dumps({"response": "x" * 300_000}))', Reply(response="x" * 300_000)),
        (
            'print(json.dumps({"n": [{"text": "a"},\n{"text": "b"}]}, indent=1))',
            Reply(data={"n": [{"text": "a"}, {"text": "b"}]}),
        ),
    ],
)
async def test_a_single_value_is_the_answer(tmp_path: Path, program: str, expected: Reply) -> None:
    assert await answer(agent(tmp_path, program), "hü") == [expected]


async def test_events_arrive_as_they_are_printed(tmp_path: Path) -> None:
    program = """
for event in ({"kind": "unknown"}, {"percent": 50, "note": "half"}, {"text": "a"}):
    print(json.dumps(event), flush=True)
while not os.path.exists("go"):
    time.sleep(0.05)
print(json.dumps({"text": "b"}))
print(json.dumps({"done": True, "confidence": 0.5}))
"""
    events = call(agent(tmp_path, program))
    assert await anext(events) == Progress(percent=50, note="half")
    assert await anext(events) == Delta(text="a")
    (tmp_path / "go").touch()
    assert [event async for event in events] == [Delta(text="b"), Reply(confidence=0.5)]


@pytest.mark.parametrize(
    ("program", "code", "detail"),
    [
        ("sys.exit(3)", ErrorCode.AGENT_FAILED, "The program exited with 3."),
        ('print(json.dumps({"response": "x"})); sys.exit(1)', ErrorCode.AGENT_FAILED, "exited with 1"),
        ("sys.exit(65)", ErrorCode.AGENT_REJECTED, "does not take this request"),
        ("sys.exit(75)", ErrorCode.AGENT_UNAVAILABLE, "may take the request later"),
        ("os.kill(os.getpid(), 9)", ErrorCode.AGENT_FAILED, "ended by SIGKILL"),
        ("os.kill(os.getpid(), 40)", ErrorCode.AGENT_FAILED, "ended by signal 40"),
        ('print(json.dumps({"percent": "NaN"}))', ErrorCode.AGENT_UNAVAILABLE, "`percent` must be from 0 to 100"),
        ('print("plain text")', ErrorCode.AGENT_UNAVAILABLE, "it is not JSON"),
        ('print(json.dumps({"text": "a"})); print("{")', ErrorCode.AGENT_UNAVAILABLE, "it is not JSON"),
        ("sys.stdout.buffer.write(b'\\xff\\n')", ErrorCode.AGENT_UNAVAILABLE, "it is not UTF-8"),
        ("[print('x' * 1_000_000) for _ in range(30)]", ErrorCode.AGENT_REJECTED, "larger than 20000000 bytes"),
        (
            'print(json.dumps({"error": {"status": 429, "retryAfter": 2}}))',
            ErrorCode.AGENT_RATE_LIMITED,
            "too many requests",
        ),
    ],
)
async def test_failures_have_the_code_of_their_cause(
    tmp_path: Path, program: str, code: ErrorCode, detail: str
) -> None:
    with pytest.raises(AgentError) as raised:
        await answer(agent(tmp_path, 'print("why it failed", file=sys.stderr)\n' + program))
    assert raised.value.code is code
    assert detail in raised.value.detail
    assert "why it failed" not in raised.value.detail, "clients see it"


async def test_operators_see_the_standard_error(tmp_path: Path) -> None:
    with pytest.raises(AgentError) as raised:
        await answer(agent(tmp_path, 'print("x" * 10_000_000 + "\\nthe reason", file=sys.stderr); sys.exit(1)'))
    assert "the reason" in str(raised.value.__cause__)
    assert len(str(raised.value.__cause__)) <= 4_000


async def test_a_program_that_reads_nothing_gets_no_broken_pipe(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text('print(\'{"response": "ok"}\')', encoding="utf-8")
    one = CommandAgent([sys.executable, "program.py"], tmp_path, {})
    assert await answer(one, "x" * 2_000_000) == [Reply(response="ok")]


async def test_the_environment_has_none_of_our_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEVENFOLD_SECRET_KEY", "secret")
    monkeypatch.setenv("TEMPORAL_API_KEY", "secret")
    monkeypatch.setenv("OF_THE_USER", "1")
    (reply,) = await answer(agent(tmp_path, 'print(json.dumps({"data": dict(os.environ)}))', MORE="2"))
    assert isinstance(reply, Reply)
    seen = reply.data or {}
    assert (seen["OF_THE_USER"], seen["MORE"]) == ("1", "2")
    assert not [name for name in seen if name.startswith(("SEVENFOLD_", "TEMPORAL_"))]


SLEEPING = """
import signal
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
if "stubborn" in (request["query"], request["task"]):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
open("pids", "w").write(f"{os.getpid()} {child.pid}")
print(json.dumps({"text": "a"}), flush=True)
time.sleep(600)
"""


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("query", ["polite", "stubborn"])
async def test_a_cancelled_call_ends_the_program_and_what_it_started(tmp_path: Path, query: str) -> None:
    one = agent(tmp_path, SLEEPING)

    async def consume() -> None:
        async for _ in call(one, query):
            pass

    calling = asyncio.create_task(consume())
    await until(lambda: (tmp_path / "pids").exists() and (tmp_path / "pids").read_text(), seconds=20)
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert all(map(is_alive, pids))
    calling.cancel()
    began = time.monotonic()
    await asyncio.wait({calling}, timeout=9)
    assert calling.cancelled()
    assert time.monotonic() - began < 8
    await until(lambda: not any(map(is_alive, pids)), seconds=5)


CONFIG = '[agents.program]\nkind = "command"\ncommand = ["{python}", "program.py"]\n'


async def test_a_call_that_is_cancelled_twice_ends_its_program_too(tmp_path: Path) -> None:
    """By its deadline, and by Temporal while the program is being ended."""
    one = agent(tmp_path, SLEEPING)

    async def consume() -> None:
        async with asyncio.timeout(2):
            async for _ in call(one, "stubborn"):
                pass

    calling = asyncio.create_task(consume())
    await until(lambda: (tmp_path / "pids").exists() and (tmp_path / "pids").read_text(), seconds=20)
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    while not calling.done():
        await asyncio.sleep(0.3)
        calling.cancel()
    await until(lambda: not any(map(is_alive, pids)), seconds=10)


async def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    program = """
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(5)"], start_new_session=True)
print(json.dumps({"response": "done"}))
"""
    one = agent(tmp_path, program)
    await answer(one)
    await one.aclose()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        await answer(one)
    await one.aclose()
    await asyncio.sleep(0.1)
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


async def test_what_a_program_leaves_behind_does_not_hold_its_answer(tmp_path: Path) -> None:
    program = """
left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(json.dumps({"response": "done"}))
open("pid", "w").write(str(left.pid))
"""
    began = time.monotonic()
    assert await answer(agent(tmp_path, program)) == [Reply(response="done")]
    assert time.monotonic() - began < 10
    await until(lambda: not is_alive(int((tmp_path / "pid").read_text())), seconds=5)


async def test_many_lines_without_an_event_are_read_in_linear_time(tmp_path: Path) -> None:
    program = 'print("\\n".join([json.dumps({"level": "info"})] * 100_000)); print(json.dumps({"response": "ok"}))'
    loop = asyncio.get_running_loop()
    delays: list[float] = []

    async def watch() -> None:
        while True:
            began = loop.time()
            await asyncio.sleep(0.01)
            delays.append(loop.time() - began)

    watching = asyncio.create_task(watch())
    assert await asyncio.wait_for(answer(agent(tmp_path, program)), 30) == [Reply(response="ok")]
    watching.cancel()
    assert max(delays) < 2, "others are not held up"
    lines = 'print(json.dumps({"numbers": list(range(150_000))}, indent=1))'
    (reply,) = await asyncio.wait_for(answer(agent(tmp_path, lines)), 30)
    assert isinstance(reply, Reply)
    assert len(reply.data["numbers"]) == 150_000  # type: ignore[index, arg-type]


async def test_a_program_that_cannot_be_executed_is_unavailable(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_text("#!/no/such/interpreter\n")
    broken.chmod(0o700)
    with pytest.raises(AgentError, match="could not be started") as raised:
        await answer(CommandAgent([str(broken)], tmp_path, {}))
    assert raised.value.code is ErrorCode.AGENT_UNAVAILABLE


async def test_a_killed_worker_leaves_no_program_behind(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(HEAD + SLEEPING, encoding="utf-8")
    settings = make_settings(tmp_path, more_config=CONFIG.format(python=sys.executable))
    with sevenfold("dev", settings) as process:
        await until_ready(settings.port, process=process)
        async with http_client(settings.port) as http:
            body = {"task": "stubborn", "agent": "program", "params": {"a": 1}}
            assert (await http.post("/api/agent/tasks", json=body)).status_code == 202
            await until(lambda: (tmp_path / "pids").exists() and (tmp_path / "pids").read_text(), seconds=20)
        process.kill()
        pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
        await until(lambda: not any(map(is_alive, pids)), seconds=10)


async def test_a_program_streams_through_the_gateway(tmp_path: Path) -> None:
    program = 'print(json.dumps({"text": "a "}), flush=True); print(json.dumps({"text": request["query"]}))\n'
    (tmp_path / "program.py").write_text(HEAD + program + 'print(json.dumps({"done": True}))', encoding="utf-8")
    async with running_stack(tmp_path, more_config=CONFIG.format(python=sys.executable)) as stack:
        found = await stack.http.post("/api/agent/query", json={"query": "question", "agent": "program"})
    assert found.json()["response"] == "a question", found.text


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"command": ["no-such-program-here"]}, "there is no program no-such-program-here"),
        ({"command": ["./missing.sh"]}, "there is no program ./missing.sh"),
        ({"command": ["true"], "working_directory": "nowhere"}, "there is no directory"),
    ],
)
def test_what_cannot_run_is_named_at_the_start(tmp_path: Path, config: dict[str, Any], problem: str) -> None:
    agents = SevenfoldConfig.model_validate({"agents": {"program": {"kind": "command", **config}}}).direct_agents
    with pytest.raises(AgentLoadError, match=problem):
        load_agents(agents, tmp_path, {})


def test_a_command_is_a_list() -> None:
    with pytest.raises(ValidationError):
        SevenfoldConfig.model_validate({"agents": {"a": {"kind": "command", "command": "ls; rm"}}})
