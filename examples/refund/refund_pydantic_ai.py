"""The same with Pydantic AI: its tools are steps, and so are the answers of its model, which are paid for once.

Offline: the model here is a function. Replace it by a name, such as `openai:gpt-5-mini`.
"""

from typing import Any

from pydantic_ai import Agent, RunContext
from pydantic_ai.messages import ModelMessage, ModelMessagesTypeAdapter, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.models.wrapper import WrapperModel
from refund import find_order, pay

from sevenfold import AgentContext, AgentRequest, Declined, Expired, Reply


def offline(messages: list[ModelMessage], _: AgentInfo) -> ModelResponse:
    """Calls the tool, and repeats what it returned."""
    for part in messages[-1].parts:
        if part.part_kind == "tool-return":
            return ModelResponse(parts=[TextPart(str(part.content))])
    order = str(messages[0].parts[-1].content).split()[-1]
    return ModelResponse(parts=[ToolCallPart("refund_order", {"number": order})])


class DurableModel(WrapperModel):
    """A model each of whose answers is a step."""

    def __init__(self, wrapped: Any, context: AgentContext) -> None:
        super().__init__(wrapped)
        self._context = context

    async def request(self, *args: Any, **kwargs: Any) -> ModelResponse:
        async def call() -> Any:
            response = await super(DurableModel, self).request(*args, **kwargs)
            return ModelMessagesTypeAdapter.dump_python([response], mode="json")

        recorded = await self._context.step("model", call)
        (response,) = ModelMessagesTypeAdapter.validate_python(recorded)
        return response  # type: ignore[return-value]


agent = Agent(instructions="You refund orders.", deps_type=AgentContext)


@agent.tool
async def refund_order(tools: RunContext[AgentContext], number: str) -> str:
    """Refunds an order, after a person has approved it."""
    order = await tools.deps.step("find-order", find_order, number)
    try:
        if order["amount"] > 100 and not await tools.deps.ask(f"Refund {order['amount']} €?", id="approve"):
            return "The refund was declined."
    except (Declined, Expired):
        return "The refund was declined."
    await tools.deps.step("pay", pay, order["amount"])
    return f"Refunded {order['amount']} €."


async def refund(request: AgentRequest, context: AgentContext) -> Reply:
    """The agent that Sevenfold calls."""
    model = DurableModel(FunctionModel(offline), context)
    result = await agent.run(f"Refund the order {request.data['order']}", model=model, deps=context)
    return Reply(response=result.output)
