"""Which API key started a workflow: whose quota the large payloads of its run count against."""

from collections.abc import Callable
from typing import Any

from cachetools import LRUCache
from temporalio import activity, client, worker
from temporalio.client import OutboundInterceptor, WorkflowHandle
from temporalio.common import SearchAttributeKey, TypedSearchAttributes
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput

from sevenfold.contracts.runs.run import KEY_ATTRIBUTE

# A payload is stored when its workflow starts, or with one of its tasks: what was used long ago is not needed.
_MAX_REMEMBERED = 20_000

_ATTRIBUTE = SearchAttributeKey.for_keyword(KEY_ATTRIBUTE)


class RunKeys(client.Interceptor, worker.Interceptor):
    """Remembers the lineage of the key of each workflow that this process starts or works for.

    Starts and workflow tasks have it as a search attribute, activities have the key's id in their input.
    """

    def __init__(self) -> None:
        self._lineages: LRUCache[str, str] = LRUCache(_MAX_REMEMBERED)
        self._find_lineage: Callable[[str], str] = str

    def use_lineages(self, find_lineage: Callable[[str], str]) -> None:
        """Sets how a key's id leads to its lineage. The directory of keys needs the client that this interceptor is a
        part of, so it comes later.
        """
        self._find_lineage = find_lineage

    def find(self, workflow_id: str) -> str | None:
        """Returns the lineage of the key that started the workflow; None if no key did, or if it is unknown."""
        return self._lineages.get(workflow_id)

    def remember(self, workflow_id: str, attributes: TypedSearchAttributes) -> None:
        """Takes the key from the search attributes of the workflow, if it has one."""
        if lineage := attributes.get(_ATTRIBUTE):
            self._lineages[workflow_id] = lineage

    def remember_key(self, workflow_id: str, key_id: str) -> None:
        """Takes the key's id, unless the workflow's search attribute is known, which is certain."""
        self._lineages.setdefault(workflow_id, self._find_lineage(key_id))

    def intercept_client(self, next: OutboundInterceptor) -> OutboundInterceptor:  # noqa: A002
        return _Outbound(next, self)

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002
        return _Inbound(next, self)


class _Outbound(OutboundInterceptor):
    def __init__(self, following: OutboundInterceptor, keys: RunKeys) -> None:
        super().__init__(following)
        self._keys = keys

    async def start_workflow(self, input: client.StartWorkflowInput) -> WorkflowHandle[Any, Any]:  # noqa: A002
        if isinstance(input.search_attributes, TypedSearchAttributes):
            self._keys.remember(input.id, input.search_attributes)
        return await super().start_workflow(input)


class _Inbound(ActivityInboundInterceptor):
    def __init__(self, following: ActivityInboundInterceptor, keys: RunKeys) -> None:
        super().__init__(following)
        self._keys = keys

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002
        key_id = getattr(input.args[0], "key_id", None) if input.args else None
        if isinstance(key_id, str):
            self._keys.remember_key(activity.info().workflow_id or "", key_id)
        return await super().execute_activity(input)
