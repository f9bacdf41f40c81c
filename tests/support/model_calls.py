"""Calls of a model behind a scripted server."""

from datetime import UTC, datetime, timedelta

from sevenfold.adapters.agents.remote.model_agent import ModelAgent, ModelApi
from sevenfold.adapters.agents.remote.model_request import ModelConfig
from sevenfold.adapters.agents.remote.upstream import Upstream
from sevenfold.contracts.agents.interface import AgentContext, AgentEvent, AgentRequest
from tests.support.receivers import Receiver
from tests.support.upstreams import Script


async def ask_model(
    api: ModelApi, server: Receiver, path: str, script: Script, terms: ModelConfig | None = None, **request: object
) -> list[AgentEvent]:
    """Asks "hi" and returns the events. `request` changes the request's fields."""
    server.by_path[path] = script
    upstream = Upstream(server.url(path), api_key="sk-secret", idle_timeout_seconds=2)
    agent = ModelAgent(upstream, terms or ModelConfig("m"), api)
    asked = AgentRequest.model_validate({"run_id": "qry_a", "task": "query", "query": "hi", **request})
    try:
        context = AgentContext(datetime.now(UTC) + timedelta(seconds=30))
        return [event async for event in agent.run(asked, context)]
    finally:
        await agent.aclose()
