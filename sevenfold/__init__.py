"""The public API for authors of agents. Everything else below `sevenfold` is internal and may change.

An agent of the kind `python` is a callable in a module beside `sevenfold.toml`:

    from sevenfold import AgentRequest

    async def answer(request: AgentRequest) -> str:
        return f"You asked: {request.query}"

| name | meaning |
|---|---|
| `AgentRequest` | the agent's input: task, query, context, data, params, metadata, number of the attempt |
| `AgentContext` | context of the call: deadline, cancellation, `step` and `ask`; an optional second parameter |
| `Delta`, `Progress`, `Reply` | the events that an agent yields: a piece of text, the progress, the complete answer |
| `Usage` | the tokens that the attempt has used so far: an event, and `Reply.usage`; budgets count it |
| `AgentEvent` | the union of these four |
| `Agent` | the interface of an agent that is an object with `run` |
| `AgentUnavailable`, `AgentRateLimited` | raise one to get the call retried, the second after `retry_after` seconds |
| `AgentRejected` | raise it to end the run: no further attempt can succeed |
| `AgentFailed` | replaces any other exception: the call is retried |
| `AgentError` | the base class of these errors |
| `StepFailed`, `StepMismatch` | raised by `context.step`: a recorded failure; steps in another order than before |
| `Declined`, `Expired` | raised by `context.ask`: nobody has accepted |

The names are loaded on first use, because every process of the gateway imports this package, and the process that
reads a document must not wait for pydantic (125 ms). None of them loads temporalio or fastapi.
"""

from importlib import import_module, metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sevenfold.contracts.agents.asking import Declined, Expired
    from sevenfold.contracts.agents.errors import (
        AgentError,
        AgentFailed,
        AgentRateLimited,
        AgentRejected,
        AgentUnavailable,
        StepMismatch,
    )
    from sevenfold.contracts.agents.interface import (
        Agent,
        AgentContext,
        AgentEvent,
        AgentRequest,
        Delta,
        Progress,
        Reply,
        Usage,
    )
    from sevenfold.contracts.agents.step_runner import StepFailed

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
    "Declined",
    "Delta",
    "Expired",
    "Progress",
    "Reply",
    "StepFailed",
    "StepMismatch",
    "Usage",
]

_HOMES = {
    **dict.fromkeys(
        ("AgentError", "AgentFailed", "AgentRateLimited", "AgentRejected", "AgentUnavailable", "StepMismatch"),
        "errors",
    ),
    **dict.fromkeys(("Declined", "Expired"), "asking"),
    "StepFailed": "step_runner",
}


def __getattr__(name: str) -> object:
    found: object
    if name == "__version__":
        found = metadata.version("sevenfold")
    elif name in __all__:
        found = getattr(import_module(f"sevenfold.contracts.agents.{_HOMES.get(name, 'interface')}"), name)
    else:
        raise AttributeError(f"module 'sevenfold' has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
