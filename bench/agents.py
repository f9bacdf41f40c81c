"""The agent that the benchmark gives to Sevenfold: it answers at once, so that only the gateway is measured."""

from typing import Any


async def instant(request: Any) -> str:
    """Answer any request at once."""
    return "ok"
