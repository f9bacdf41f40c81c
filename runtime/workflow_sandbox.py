"""The sandbox that workflows run in, without asking it whose each payload is, or keeping what began a run."""

from copy import deepcopy
from dataclasses import replace
from typing import Any, cast

from temporalio.bridge.proto.workflow_activation import WorkflowActivation
from temporalio.bridge.proto.workflow_completion import WorkflowActivationCompletion
from temporalio.converter import SerializationContext, StorageDriverStoreContext
from temporalio.worker import (
    ExecuteWorkflowInput,
    WorkflowInboundInterceptor,
    WorkflowInstance,
    WorkflowInstanceDetails,
)
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner
from temporalio.workflow import Info


class SandboxWithoutContexts(SandboxedWorkflowRunner):
    """Temporal's own sandbox, for data converters that need not know whose payload they are given.

    The SDK has the sandbox compile and run code for every payload of every workflow task, three times each, to say
    which workflow or activity it belongs to: a tenth of a busy worker's time. Ours is the same JSON for all.

    A run that is cached also holds views into the message that began it and into that of its latest task, and with
    them all of these, its request too, for as long as it lasts. Ours holds copies of the little that it needs.
    """

    def create_instance(self, det: WorkflowInstanceDetails) -> WorkflowInstance:
        """A run in a sandbox of its own."""
        info = det.info
        apart = replace(
            det,
            info=replace(info, headers=deepcopy(dict(info.headers)), raw_memo=deepcopy(dict(info.raw_memo))),
            last_completion_result=deepcopy(det.last_completion_result),
            interceptor_classes=[*det.interceptor_classes, _WithoutView],
        )
        return _Instance(super().create_instance(apart))


class _WithoutView(WorkflowInboundInterceptor):
    async def execute_workflow(self, input: ExecuteWorkflowInput) -> Any:  # noqa: A002  (the SDK's name)
        input.headers = deepcopy(dict(input.headers))
        return await super().execute_workflow(input)


class _Activation:
    """A workflow task's message, of which nothing is kept but copies."""

    def __init__(self, act: WorkflowActivation) -> None:
        self._act = act
        self.available_internal_flags = list(act.available_internal_flags)
        self.deployment_version_for_current_task = deepcopy(act.deployment_version_for_current_task)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._act, name)


class _Instance(WorkflowInstance):
    def __init__(self, sandboxed: WorkflowInstance) -> None:
        self._sandboxed = sandboxed

    def activate(self, act: WorkflowActivation) -> WorkflowActivationCompletion:
        return self._sandboxed.activate(cast("WorkflowActivation", _Activation(act)))

    def get_serialization_context(self, command_info: Any) -> SerializationContext | None:
        return None

    def get_external_store_context(self, command_info: Any) -> StorageDriverStoreContext:
        return self._sandboxed.get_external_store_context(command_info)  # a bucket's keys are made of it

    def get_info(self) -> Info:
        return self._sandboxed.get_info()

    def get_thread_id(self) -> int | None:
        return self._sandboxed.get_thread_id()
