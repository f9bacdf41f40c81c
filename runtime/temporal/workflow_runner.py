"""Runs workflows without a sandbox, and keeps no message of theirs in memory."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any, cast

from temporalio.bridge.proto.workflow_activation import WorkflowActivation
from temporalio.bridge.proto.workflow_completion import WorkflowActivationCompletion
from temporalio.converter import SerializationContext, StorageDriverStoreContext
from temporalio.worker import (
    ExecuteWorkflowInput,
    UnsandboxedWorkflowRunner,
    WorkflowInboundInterceptor,
    WorkflowInstance,
    WorkflowInstanceDetails,
)
from temporalio.workflow import Info


class DetachedWorkflowRunner(UnsandboxedWorkflowRunner):
    """Temporal's own runner, whose cached runs hold copies of what they need from a message, and no views into it.

    A view into a part of a protobuf message keeps all of it in memory. A cached run would so hold its start, with a
    request of up to 256 kB, and its latest task, for as long as it lasts. `on_start` gets what is known of each run.
    """

    def __init__(self, on_start: Callable[[Info], None]) -> None:
        super().__init__()
        self._on_start = on_start

    def create_instance(self, det: WorkflowInstanceDetails) -> WorkflowInstance:
        """A run, detached from the message that starts it."""
        info = det.info
        self._on_start(info)
        detached = replace(
            det,
            info=replace(info, headers=deepcopy(dict(info.headers)), raw_memo=deepcopy(dict(info.raw_memo))),
            last_completion_result=deepcopy(det.last_completion_result),
            interceptor_classes=[*det.interceptor_classes, _DetachHeaders],
        )
        return _DetachedInstance(super().create_instance(detached))


class _DetachHeaders(WorkflowInboundInterceptor):
    async def execute_workflow(self, input: ExecuteWorkflowInput) -> Any:  # noqa: A002  (the SDK's name)
        input.headers = deepcopy(dict(input.headers))
        return await super().execute_workflow(input)


class _DetachedActivation:
    """The message of one workflow task: what the SDK keeps of it is a copy."""

    def __init__(self, activation: WorkflowActivation) -> None:
        self._activation = activation
        self.available_internal_flags = list(activation.available_internal_flags)
        self.deployment_version_for_current_task = deepcopy(activation.deployment_version_for_current_task)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._activation, name)


class _DetachedInstance(WorkflowInstance):
    def __init__(self, instance: WorkflowInstance) -> None:
        self._instance = instance

    def activate(self, act: WorkflowActivation) -> WorkflowActivationCompletion:
        return self._instance.activate(cast("WorkflowActivation", _DetachedActivation(act)))

    def get_serialization_context(self, command_info: Any) -> SerializationContext | None:
        return self._instance.get_serialization_context(command_info)

    def get_external_store_context(self, command_info: Any) -> StorageDriverStoreContext:
        return self._instance.get_external_store_context(command_info)

    def get_info(self) -> Info:
        return self._instance.get_info()

    def get_thread_id(self) -> int | None:
        return self._instance.get_thread_id()
