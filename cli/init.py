"""`sevenfold init`: writes a configuration, an agent and its test."""

from pathlib import Path
from typing import Annotated

import typer

_FILES = {
    "sevenfold.toml": """# The configuration of Sevenfold; docs/configuration.md has every key. Try: sevenfold check

# The agent of requests that name none.
default_agent = "support"

[agents.support]
kind = "python"               # or command, http, openai, workflow, builtin
target = "support:answer"     # module:function, beside this file
# max_concurrency = 10        # calls at a time, over all workers
# rate = "100/m"              # calls a minute, over all workers
# price = { input = 2.5, output = 10 }   # dollars for a million tokens

# What happens when an event arrives at POST /api/agent/events:
# [[subscriptions]]
# name = "welcome"
# filter = { exact = { type = "customer.created" } }
# agent = "support"
# task = "welcome"
""",
    "support.py": '''"""An agent: an async generator of events, or a plain function that returns text or a dict."""

from collections.abc import AsyncIterator

from sevenfold import AgentContext, AgentRequest, Delta, Progress, Reply


async def answer(request: AgentRequest, context: AgentContext) -> AsyncIterator[Delta | Progress | Reply]:
    """Answers in pieces. Call your model here; `context.deadline` is when the answer is due."""
    question = request.query or request.task
    yield Progress(percent=10, note="reading the question")
    for word in ("You", "asked:", question):
        yield Delta(text=f"{word} ")
    yield Reply(response=f"You asked: {question}", confidence=0.9)
''',
    "test_support.py": '''"""Run it with `pytest`. An agent needs no server for its tests."""

import asyncio
from datetime import UTC, datetime, timedelta

from sevenfold import AgentContext, AgentRequest, Reply
from support import answer


async def collect(request: AgentRequest) -> list[object]:
    context = AgentContext(deadline=datetime.now(UTC) + timedelta(seconds=10))
    return [event async for event in answer(request, context)]


def test_it_ends_with_a_reply() -> None:
    events = asyncio.run(collect(AgentRequest(run_id="test", task="query", query="Where is my parcel?")))
    assert isinstance(events[-1], Reply)
    assert "Where is my parcel?" in events[-1].response
''',
}

# The data directory holds keys and histories. A project that has the file keeps it as it is.
_IGNORED = ".sevenfold/\n__pycache__/\n"

_NEXT = """
Next:{cd}
  sevenfold dev --reload      # starts everything on this machine, and again after each change
  curl -s http://localhost:8000/api/agent/query -H 'Content-Type: application/json' \\
    -d '{"query": "Where is my parcel?"}'
"""


def write_project(
    directory: Annotated[Path, typer.Argument(help="Where to write; the current directory by default.")] = Path(),
) -> None:
    """Writes sevenfold.toml, support.py, test_support.py and .gitignore. Overwrites nothing."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        existing = [name for name in _FILES if (directory / name).exists()]
        if existing:
            typer.echo(f"{directory.resolve()} has {', '.join(existing)} already: nothing was written.", err=True)
            raise typer.Exit(2)
        for name, text in _FILES.items():
            (directory / name).write_text(text, encoding="utf-8")
            typer.echo(f"wrote {directory / name}")
        if not (ignored := directory / ".gitignore").exists():
            ignored.write_text(_IGNORED, encoding="utf-8")
            typer.echo(f"wrote {ignored}")
    except OSError as error:
        typer.echo(f"{error.filename}: {error.strerror}.", err=True)
        raise typer.Exit(2) from None
    is_here = directory.resolve() == Path.cwd()
    typer.echo(_NEXT.replace("{cd}", "" if is_here else f"\n  cd {directory}"))
