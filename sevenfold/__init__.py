"""What the author of an agent imports. Everything else below `sevenfold` is the gateway's own and may change.

An agent of the kind `python` is a callable in a module beside `sevenfold.toml`:

    from sevenfold import AgentRequest

    async def answer(request: AgentRequest) -> str:
        return f"You asked: {request.query}"

| name | what it is |
|---|---|
| `AgentRequest` | what the agent is asked: task, query, context, data, params, metadata, number of the attempt |
| `AgentContext` | the call around it: deadline, cancellation, request id; an optional second parameter |
| `Delta`, `Progress`, `Reply` | what an agent yields: a piece of the text, how far the work is, the whole answer |
| `AgentEvent` | one of these three |
| `Usage` | tokens, for `Reply.usage` |
| `Agent` | the interface of an agent that is an object with `run` |
| `AgentUnavailable`, `AgentRateLimited` | raise one to be called again, the second after `retry_after` seconds |
| `AgentRejected` | raise it to end the run: no further attempt can succeed |
| `AgentFailed` | what any other exception becomes: the call is tried again |
| `AgentError` | the base class of these errors |

The names are loaded on first use, because every process that imports a part of the gateway passes through here, and
the one that reads a document must not wait for pydantic (125 ms). None of them loads temporalio or fastapi.
"""

from importlib import import_module, metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sevenfold.contracts.agent import (
        Agent,
        AgentContext,
        AgentEvent,
        AgentRequest,
        Delta,
        Progress,
        Reply,
        Usage,
    )
    from sevenfold.contracts.verdicts import (
        AgentError,
        AgentFailed,
        AgentRateLimited,
        AgentRejected,
        AgentUnavailable,
    )

    __version__: str

__all__ = [
    "Agent",
    "AgentContext",
    "AgentError",
    "AgentEvent",
    "AgentFailed",
    "AgentRateLimited",
    "AgentRejected",
    "AgentRequest",
    "AgentUnavailable",
    "Delta",
    "Progress",
    "Reply",
    "Usage",
]

_ERRORS = ("AgentError", "AgentFailed", "AgentRateLimited", "AgentRejected", "AgentUnavailable")


def __getattr__(name: str) -> object:
    found: object
    if name == "__version__":
        found = metadata.version("sevenfold")
    elif name in __all__:
        home = "verdicts" if name in _ERRORS else "agent"
        found = getattr(import_module(f"sevenfold.contracts.{home}"), name)
    else:
        raise AttributeError(f"module 'sevenfold' has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
