"""A support agent that knows a few answers and looks into the rest, and analytics that count what it did."""

import asyncio
import json
from pathlib import Path

from sevenfold import AgentRequest

ANSWERS = {
    "ship": "We ship to all of Europe, within three days.",
    "return": "You have 30 days to return it, free of charge.",
}
INTERACTIONS = Path("interactions.jsonl")


async def answer(request: AgentRequest) -> dict[str, object]:
    """An FAQ at once; everything else takes a closer look."""
    asked = (request.query or "").lower()
    for word, known in ANSWERS.items():
        if word in asked:
            return {"response": known, "confidence": 0.95}
    await asyncio.sleep(4)  # looks into the account
    return {"response": "We have unlocked your account; please set a new password.", "confidence": 0.8}


def count(request: AgentRequest) -> str:
    """Keeps a line for each interaction."""
    interaction = {name: request.data.get(name) for name in ("runId", "pattern", "agent", "status", "seconds")}
    with INTERACTIONS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(interaction) + "\n")
    return "counted"
