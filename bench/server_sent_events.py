"""A parser of server-sent events that shares no code with the product."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx


@dataclass(frozen=True)
class Event:
    """A server-sent event."""

    name: str
    data: dict[str, Any]
    id: str | None

    @property
    def is_chunk(self) -> bool:
        """Whether it holds a piece of the answer's text."""
        return self.name == "message" and "chunk" in self.data


async def events(answer: httpx.Response) -> AsyncIterator[Event]:
    """Parse the events as the WHATWG specifies; comments and `retry` are left out."""
    name, data, identity = "message", [], None
    async for line in answer.aiter_lines():
        if not line:
            if data:
                yield Event(name, json.loads("\n".join(data)), identity)
            name, data, identity = "message", [], None
        elif not line.startswith(":"):
            field, _, value = line.partition(": ")
            match field:
                case "event":
                    name = value
                case "data":
                    data.append(value)
                case "id":
                    identity = value
