"""Two LangGraph graphs behind Sevenfold: `chat` as it is, and `answer` around a graph whose nodes are its progress.

Offline: `chat` has a model that repeats one sentence; ask another one instead.
"""

from collections.abc import AsyncIterator
from typing import Any, TypedDict

from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langgraph.graph import END, START, MessagesState, StateGraph

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


async def ask_model(state: MessagesState) -> MessagesState:
    """The only node: a model that streams."""
    model = GenericFakeChatModel(messages=iter([AIMessage("Let me look into that.")]))
    return {"messages": [await model.ainvoke(state["messages"])]}


chat = StateGraph(MessagesState).add_node("ask", ask_model).add_edge(START, "ask").compile()
