"""A Pydantic AI agent behind Sevenfold: offline unless SUPPORT_MODEL names a model, such as `openai:gpt-5-mini`."""

import os

from pydantic import BaseModel, Field
from pydantic_ai import Agent
from pydantic_ai.models.test import TestModel


class Answer(BaseModel):
    """What the model has to fill in."""

    category: str = Field(description="billing, technical or other")
    response: str = Field(description="The answer to the customer.")
    urgent: bool = False


OFFLINE = TestModel(custom_output_args={"category": "billing", "response": "We will refund you.", "urgent": True})

agent = Agent(
    os.environ.get("SUPPORT_MODEL") or OFFLINE,
    output_type=Answer,
    instructions="You answer the requests of our customers, kindly and briefly.",
    retries=1,
    defer_model_check=True,
)
