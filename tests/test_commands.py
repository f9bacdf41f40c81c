"""`sevenfold recommend`, `stats` and `demo` as a user runs them."""

import asyncio
import json

from tests.support.fork_server import run_sevenfold
from tests.support.stack import Stack


async def test_recommend_and_stats_commands(stack: Stack) -> None:
    url = f"http://127.0.0.1:{stack.settings.port}"
    done = await asyncio.to_thread(run_sevenfold, "recommend", "--duration", "600", "--client", "legacy", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["pattern"] == "polling"
    shown = await asyncio.to_thread(run_sevenfold, "recommend", "--agent", "echo", "--url", url)
    assert shown.returncode == 0, shown.stderr
    assert "POST /api/agent/" in shown.stdout
    stats = await asyncio.to_thread(run_sevenfold, "stats", "--once", "--url", url)
    assert stats.returncode == 0, stats.stderr
    assert "sevenfold-batch" in stats.stdout
    away = await asyncio.to_thread(run_sevenfold, "stats", "--once", "--url", "http://127.0.0.1:9")
    assert away.returncode == 2
    assert "sevenfold dev" in away.stderr


async def test_demo_runs_all_patterns_and_fails_without_a_server(stack: Stack) -> None:
    """Against a running gateway; a pattern that fails makes the exit code 1."""
    url = f"http://127.0.0.1:{stack.settings.port}"
    done = await asyncio.to_thread(run_sevenfold, "demo", "--url", url)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("done") == 7
    broken = await asyncio.to_thread(run_sevenfold, "demo", "--url", "http://127.0.0.1:9")
    assert broken.returncode == 1
    assert broken.stdout.count("failed") >= 7
