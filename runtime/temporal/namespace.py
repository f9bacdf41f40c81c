"""Sets up search attributes and retention of the Temporal namespace. It uses the API because server flags do not
change an existing database.
"""

import asyncio
from datetime import timedelta

from google.protobuf.duration_pb2 import Duration
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.namespace.v1 import NamespaceConfig
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest, UpdateNamespaceRequest
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from sevenfold.contracts.agents.questions import INPUT_ATTRIBUTE
from sevenfold.contracts.runs.run import LIST_SEARCH_ATTRIBUTES, SEARCH_ATTRIBUTES
from sevenfold.runtime.startup import StartupError

_KEYWORD = IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD
_KEYWORD_LIST = IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD_LIST
_BOOL = IndexedValueType.INDEXED_VALUE_TYPE_BOOL
_TYPE_NAMES = {_KEYWORD: "Keyword", _KEYWORD_LIST: "KeywordList", _BOOL: "Bool"}
ATTRIBUTE_TYPES = {
    **dict.fromkeys(SEARCH_ATTRIBUTES, _KEYWORD),
    **dict.fromkeys(LIST_SEARCH_ATTRIBUTES, _KEYWORD_LIST),
    INPUT_ATTRIBUTE: _BOOL,
}
_TIMEOUT_SECONDS = 20.0


async def ensure_search_attributes(client: Client) -> None:
    """Adds missing search attributes and waits until the server lists them. Raises StartupError."""
    try:
        missing = await find_missing_attributes(client)
        if missing:
            await client.operator_service.add_search_attributes(
                AddSearchAttributesRequest(
                    namespace=client.namespace,
                    search_attributes={name: ATTRIBUTE_TYPES[name] for name in missing},
                )
            )
        deadline = asyncio.get_running_loop().time() + _TIMEOUT_SECONDS
        while missing and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.05)
            missing = await find_missing_attributes(client)
    except RPCError as error:
        names = " ".join(f"--name {name} --type {_TYPE_NAMES[kind]}" for name, kind in ATTRIBUTE_TYPES.items())
        raise StartupError(
            f"The search attributes of namespace {client.namespace} cannot be created: {error.message}. If this "
            f"account lacks the permission, an operator can run: temporal operator search-attribute create {names}"
        ) from None
    if missing:
        raise StartupError(
            f"The Temporal server does not list the search attributes {', '.join(missing)} after "
            f"{_TIMEOUT_SECONDS:.0f} s. Start Sevenfold again."
        )


async def find_missing_attributes(client: Client) -> list[str]:
    """Returns the search attributes that the namespace lacks. Raises StartupError if one has another type."""
    known = await client.operator_service.list_search_attributes(
        ListSearchAttributesRequest(namespace=client.namespace)
    )
    types = {**known.custom_attributes, **known.system_attributes}
    for name, kind in ATTRIBUTE_TYPES.items():
        if name in types and types[name] != kind:
            raise StartupError(
                f"Search attribute {name} of namespace {client.namespace} is not of type {_TYPE_NAMES[kind]}, which "
                "Sevenfold needs. Use another namespace (TEMPORAL_NAMESPACE)."
            )
    return [name for name in ATTRIBUTE_TYPES if name not in types]


async def ensure_retention(client: Client, retention: timedelta) -> None:
    """Sets how long ended runs are kept: the window in which results are readable and idempotency keys are known.
    Raises StartupError.
    """
    expected = Duration()
    expected.FromTimedelta(retention)
    deadline = asyncio.get_running_loop().time() + _TIMEOUT_SECONDS
    while True:
        try:
            service = client.workflow_service
            now = await service.describe_namespace(DescribeNamespaceRequest(namespace=client.namespace))
            if now.config.workflow_execution_retention_ttl != expected:
                await service.update_namespace(
                    UpdateNamespaceRequest(
                        namespace=client.namespace,
                        config=NamespaceConfig(workflow_execution_retention_ttl=expected),
                    )
                )
            return
        except RPCError as error:
            # A new server answers before its default namespace exists.
            if error.status != RPCStatusCode.NOT_FOUND or asyncio.get_running_loop().time() > deadline:
                raise StartupError(f"The retention cannot be set: {error.message}") from None
            await asyncio.sleep(0.05)
