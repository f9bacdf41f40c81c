"""The connection to Temporal, and the plugin that client, worker and replayer share."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from pydantic import ValidationError
from temporalio.client import Client
from temporalio.converter import DataConverter, DefaultFailureConverter, ExternalStorage
from temporalio.envconfig import ClientConfig, ClientConnectConfig
from temporalio.plugin import SimplePlugin
from temporalio.service import GrpcCompression, PayloadLimitsConfig, RPCError

from sevenfold.adapters.encryption.failure_converter import EncodedFailureConverter
from sevenfold.adapters.encryption.key_ring import KeyRing
from sevenfold.adapters.encryption.payload_codec import EncryptionCodec
from sevenfold.runtime.config.settings import Settings, uses_own_cluster
from sevenfold.runtime.interceptors.builds import EagerStarts
from sevenfold.runtime.interceptors.call_timeouts import CallTimeouts
from sevenfold.runtime.interceptors.child_call_spans import ChildCallSpans
from sevenfold.runtime.interceptors.fair_starts import FairStarts
from sevenfold.runtime.interceptors.run_keys import RunKeys
from sevenfold.runtime.interceptors.run_observer import RunObserver
from sevenfold.runtime.secrets.codec_keys import load_key_ring
from sevenfold.runtime.startup import StartupError
from sevenfold.runtime.temporal.embedded import HOST
from sevenfold.runtime.temporal.payload_converter import SharedPydanticConverter
from sevenfold.runtime.temporal.payloads import open_storage
from sevenfold.runtime.temporal.sdk import sdk_runtime
from sevenfold.runtime.temporal.workflow_runner import DetachedWorkflowRunner

# Lists read memos: metadata, delivery logs, small events. Each is bounded where it is created; the SDK would warn
# about every memo over 2 kB.
_PAYLOAD_LIMITS = PayloadLimitsConfig(memo_warn_size=0)


@dataclass(frozen=True)
class Interceptors:
    """What takes part in every start and task. The first two get their directories when there is a client."""

    fair_starts: FairStarts = field(default_factory=FairStarts)
    run_keys: RunKeys = field(default_factory=RunKeys)
    eager_starts: EagerStarts = field(default_factory=EagerStarts)


def build_plugin(
    storage: ExternalStorage, interceptors: Interceptors | None = None, keys: KeyRing | None = None
) -> SimplePlugin:
    """Returns the data converter, workflow runner and failure types that every client, worker and replayer uses."""
    own = interceptors or Interceptors()
    return SimplePlugin(
        "sevenfold",
        interceptors=[
            CallTimeouts(),
            own.fair_starts,
            own.run_keys,
            own.eager_starts,
            RunObserver(),
            ChildCallSpans(),
        ],
        data_converter=DataConverter(
            payload_converter_class=SharedPydanticConverter,
            # Without keys too: it reports payloads that need one.
            payload_codec=EncryptionCodec(keys or KeyRing({})),
            failure_converter_class=EncodedFailureConverter if keys else DefaultFailureConverter,
            external_storage=storage,
        ),
        # The sandbox would check nothing, because our packages have to pass through it. A lint rule checks instead
        # (workflows/ruff.toml).
        workflow_runner=DetachedWorkflowRunner(
            lambda info: own.run_keys.remember(info.workflow_id, info.typed_search_attributes)
        ),
        # An input that does not fit its type never will: fail the run instead of retrying its workflow task forever.
        workflow_failure_exception_types=[ValidationError],
    )


@asynccontextmanager
async def connect_temporal(settings: Settings, interceptors: Interceptors | None = None) -> AsyncIterator[Client]:
    """A client for the cluster of the `TEMPORAL_*` variables, else for the embedded server on this machine.

    It reads and writes large payloads while the block runs. Raises StartupError.
    """
    own = interceptors or Interceptors()
    async with open_storage(settings, own.run_keys.find) as storage:
        yield await _connect_client(settings, build_plugin(storage, own, load_key_ring(settings)))


async def connect_without_payloads(settings: Settings) -> Client:
    """A client that can neither read nor write our payloads, for what needs none. Raises StartupError."""
    return await _connect_client(settings)


async def _connect_client(settings: Settings, *plugins: SimplePlugin) -> Client:
    config = _connect_config(settings)
    address = config["target_host"]
    loopback = address.rpartition(":")[0] in ("127.0.0.1", "localhost", "[::1]")
    try:
        return await Client.connect(
            **config,
            plugins=plugins,
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
        raise StartupError(f"Temporal at {address} cannot be reached: {_describe(error)}. {hint}") from None


def _describe(error: Exception) -> str:
    """Returns the reason alone, where the SDK shows the structures of its Rust code."""
    found = re.search(r'message: "([^"]+)"', str(error))
    return found[1] if found else str(error)


def _connect_config(settings: Settings) -> ClientConnectConfig:
    if uses_own_cluster():
        try:
            return ClientConfig.load_client_connect_config()
        except (RuntimeError, ValueError) as error:
            raise StartupError(f"The TEMPORAL_* variables are inconsistent: {error}") from None
    return ClientConnectConfig(target_host=f"{HOST}:{settings.temporal_port}", namespace="default")
