"""Dependencies of handlers for operators."""

from typing import Annotated

from fastapi import Depends

from sevenfold.api.dependencies import component
from sevenfold.api.operations.agent_overview import AgentOverview
from sevenfold.api.operations.statistics_reader import StatisticsReader
from sevenfold.api.operations.usage_reader import UsageReader

AgentOverviewDep = Annotated[AgentOverview, Depends(component("agent_overview"))]
StatisticsReaderDep = Annotated[StatisticsReader, Depends(component("statistics_reader"))]
UsageReaderDep = Annotated[UsageReader, Depends(component("usage_reader"))]
