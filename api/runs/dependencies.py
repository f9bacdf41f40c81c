"""Dependencies of handlers that start or read runs."""

from typing import Annotated

from fastapi import Depends

from sevenfold.adapters.temporal.durations import Durations
from sevenfold.api.dependencies import component
from sevenfold.api.runs.agents import AgentCatalog
from sevenfold.api.runs.approval_desk import ApprovalDesk
from sevenfold.api.runs.estimates import JobEstimator
from sevenfold.api.runs.job_views import JobReader
from sevenfold.api.runs.poll_cache import PollCache
from sevenfold.api.runs.reader import RunReader
from sevenfold.api.runs.retry import RunRetrier
from sevenfold.api.runs.start import RunStarter

ApprovalDeskDep = Annotated[ApprovalDesk, Depends(component("approval_desk"))]
AgentsDep = Annotated[AgentCatalog, Depends(component("agents"))]
DurationsDep = Annotated[Durations, Depends(component("durations"))]
JobEstimatorDep = Annotated[JobEstimator, Depends(component("job_estimator"))]
JobReaderDep = Annotated[JobReader, Depends(component("job_reader"))]
PollCacheDep = Annotated[PollCache, Depends(component("poll_cache"))]
RunReaderDep = Annotated[RunReader, Depends(component("run_reader"))]
RunRetrierDep = Annotated[RunRetrier, Depends(component("run_retrier"))]
RunStarterDep = Annotated[RunStarter, Depends(component("run_starter"))]
