"""A LangGraph graph behind Sevenfold: each node that is done is progress. Offline; a node may as well ask a model."""

from collections.abc import AsyncIterator
from typing import Any, TypedDict

from langgraph.graph import END, START, StateGraph

from sevenfold import AgentEvent, Progress, Reply


class State(TypedDict, total=False):
    """What the nodes hand on."""

    message: str
    category: str
    response: str


def classify(state: State) -> State:
    """The first node."""
    return {"category": "billing" if "charged" in state["message"].lower() else "other"}


async def respond(state: State) -> State:
    """The second."""
    return {"response": f"Thank you. Our {state['category']} team has your request."}


builder = StateGraph(State)
builder.add_node("classify", classify)
builder.add_node("respond", respond)
builder.add_edge(START, "classify")
builder.add_edge("classify", "respond")
builder.add_edge("respond", END)
graph = builder.compile()
NODES = 2


async def answer(request: Any) -> AsyncIterator[AgentEvent]:
    """`request` is a `sevenfold.AgentRequest`."""
    state: dict[str, Any] = {"message": request.query or request.task}
    done = 0
    async for update in graph.astream(dict(state), stream_mode="updates"):
        for node, change in update.items():
            done += 1
            state.update(change or {})
            yield Progress(percent=100 * done / NODES, note=f"{node} is done")
    yield Reply(response=state["response"], data={"category": state["category"]})
