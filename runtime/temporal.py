"""The connection to Temporal, and the one plugin that keeps client, worker and replayer alike."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pydantic import ValidationError
from temporalio.client import Client
from temporalio.converter import DataConverter, ExternalStorage
from temporalio.envconfig import ClientConfig, ClientConnectConfig
from temporalio.plugin import SimplePlugin
from temporalio.service import GrpcCompression, PayloadLimitsConfig, RPCError

from sevenfold.runtime.call_timeouts import CallTimeouts
from sevenfold.runtime.embedded import HOST
from sevenfold.runtime.payload_converter import SharedPydanticConverter
from sevenfold.runtime.payloads import open_storage
from sevenfold.runtime.sdk import sdk_runtime
from sevenfold.runtime.settings import Settings, uses_own_cluster
from sevenfold.runtime.startup import StartupError
from sevenfold.runtime.workflow_runner import DetachedWorkflowRunner

# What lists show stands in memos: metadata, logs of deliveries, small events. Each is bounded where it is made; the
# SDK would warn of every one over 2 kB.
_PAYLOAD_LIMITS = PayloadLimitsConfig(memo_warn_size=0)


def build_plugin(storage: ExternalStorage) -> SimplePlugin:
    """The data converter, workflow runner and failure types, the same wherever workflows are started or replayed."""
    return SimplePlugin(
        "sevenfold",
        interceptors=[CallTimeouts()],
        data_converter=DataConverter(payload_converter_class=SharedPydanticConverter, external_storage=storage),
        # The sandbox would check nothing, since our packages have to pass through it: a lint rule does
        # (workflows/ruff.toml).
        workflow_runner=DetachedWorkflowRunner(),
        # An input that does not fit its type never will: fail the run instead of trying its task for ever.
        workflow_failure_exception_types=[ValidationError],
    )


@asynccontextmanager
async def connect_temporal(settings: Settings) -> AsyncIterator[Client]:
    """A client for the cluster that `TEMPORAL_*` names, else for the embedded server on this machine.

    It reads and writes large payloads while the block runs.
    """
    async with open_storage(settings) as storage:
        yield await _connect_client(settings, storage)


async def _connect_client(settings: Settings, storage: ExternalStorage) -> Client:
    config = _connect_config(settings)
    address = config["target_host"]
    loopback = address.rpartition(":")[0] in ("127.0.0.1", "localhost", "[::1]")
    try:
        return await Client.connect(
            **config,
            plugins=[build_plugin(storage)],
            runtime=sdk_runtime(),
            payload_limits=_PAYLOAD_LIMITS,
            grpc_compression=GrpcCompression.NONE if loopback else GrpcCompression.GZIP,
        )
    except (RPCError, RuntimeError) as error:
        hint = (
            "Check TEMPORAL_ADDRESS and the other TEMPORAL_* variables."
            if uses_own_cluster()
            else "Start it with `sevenfold dev`, or set TEMPORAL_ADDRESS."
        )
        raise StartupError(f"Temporal at {address} cannot be reached: {error}. {hint}") from None


def _connect_config(settings: Settings) -> ClientConnectConfig:
    if uses_own_cluster():
        try:
            return ClientConfig.load_client_connect_config()
        except (RuntimeError, ValueError) as error:
            raise StartupError(f"The TEMPORAL_* variables do not fit together: {error}") from None
    return ClientConnectConfig(target_host=f"{HOST}:{settings.temporal_port}", namespace="default")
