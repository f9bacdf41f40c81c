"""The `openai` package against the product, unchanged."""

from typing import Any

from openai import AsyncOpenAI

from tests.support.stack import Stack


def openai_client(stack: Stack, api_key: str = "any", **options: Any) -> AsyncOpenAI:
    """A client of the running product; a gateway without keys takes any."""
    return client_at(stack.settings.port, api_key, **options)


def client_at(port: int, api_key: str = "any", **options: Any) -> AsyncOpenAI:
    """A client of a gateway on this machine."""
    return AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=api_key, **{"timeout": 60, **options})


def asks(**params: object) -> dict[str, Any]:
    """What the gateway takes beside OpenAI's fields: the agent's params."""
    return {"sevenfold": {"params": params}}
