"""Checks part by part whether a gateway could start with these settings, for `sevenfold check`. Starts nothing."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial

from temporalio.client import Client
from temporalio.service import RPCError

from sevenfold.adapters.agents.loading import AgentLoadError, load_agents
from sevenfold.adapters.brokers.message import BrokerMessage
from sevenfold.adapters.payloads.stores import PayloadStoreError, expiring_stores
from sevenfold.adapters.temporal.pollers import count_workers
from sevenfold.adapters.temporal.task_queues import WORKFLOW_TASKS, describe_task_queue
from sevenfold.contracts.config.brokers import BrokerConfig
from sevenfold.contracts.config.schema import SevenfoldConfig
from sevenfold.runtime.brokers import build_transport
from sevenfold.runtime.config.config_file import load_config
from sevenfold.runtime.config.settings import Settings, find_misspelt, uses_own_cluster
from sevenfold.runtime.secrets.codec_keys import check_open_workflows, load_key_ring
from sevenfold.runtime.secrets.secret_key import load_sealer
from sevenfold.runtime.secrets.tls import load_tls
from sevenfold.runtime.startup import StartupError
from sevenfold.runtime.streams import open_stream_log
from sevenfold.runtime.temporal.connection import connect_temporal
from sevenfold.runtime.temporal.embedded import find_binary
from sevenfold.runtime.temporal.namespace import find_missing_attributes

# By how many seconds the clocks of this machine and of Temporal may differ.
_MAX_CLOCK_OFFSET = 5.0

_TIMEOUT = timedelta(seconds=10)
_BROKER_SECONDS = 5.0


@dataclass(frozen=True)
class Finding:
    """The result of one check. `detail`: what was found, or what to do."""

    part: str
    is_ok: bool
    detail: str


@dataclass
class Checks:
    """The parts of one gateway. What a check found is there for the next ones; without it they are left out."""

    settings: Settings
    config: SevenfoldConfig | None = None
    client: Client | None = None
    _resources: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def run(self) -> AsyncIterator[Finding]:
        """Yields the findings as they come."""
        async with self._resources:
            for part, check in self._parts():
                yield await _find(part, check)
            if self.config is not None:
                yield await _find("agents", self._check_agents)
                for name, broker in self.config.brokers.items():
                    yield await _find(f"broker {name}", partial(_check_broker, name, broker))
            if self.client is not None:
                for part, check in self._parts_of_temporal():
                    yield await _find(part, check)

    def _parts(self) -> list[tuple[str, Callable[[], Awaitable[str]]]]:
        return [
            ("settings", self._check_settings),
            ("configuration", self._check_configuration),
            ("keys", self._check_keys),
            ("temporal", self._check_temporal),
        ]

    def _parts_of_temporal(self) -> list[tuple[str, Callable[[], Awaitable[str]]]]:
        return [
            ("search attributes", self._check_attributes),
            ("workers", self._check_workers),
            ("clock", self._check_clock),
            ("payloads", self._check_payloads),
            ("streams", self._check_streams),
        ]

    async def _check_settings(self) -> str:
        if misspelt := find_misspelt():
            raise StartupError("; ".join(misspelt))
        return "all known"

    async def _check_configuration(self) -> str:
        path = self.settings.config
        self.config = config = load_config(path)
        self.settings.check_exposure(has_credentials=config.has_credentials)
        if not path.exists():
            return f"there is no {path}: the built-in agent answers; `sevenfold init` writes one"
        count = len(config.subscriptions)
        return f"{path}: {len(config.agents)} agents, {count} subscriptions, {len(config.brokers)} brokers"

    async def _check_agents(self) -> str:
        config = self.config or SevenfoldConfig()
        try:
            agents = load_agents(config.direct_agents, self.settings.config.parent, os.environ)
        except AgentLoadError as error:
            raise StartupError(str(error)) from None
        await agents.aclose()
        names = [f"{name} (default)" if name == config.default_agent else name for name in sorted(config.agents)]
        return ", ".join(names)

    async def _check_keys(self) -> str:
        found = ["https"] if load_tls(self.settings) is not None else []
        if uses_own_cluster() and self.settings.secret_key is None:
            found.append("no SEVENFOLD_SECRET_KEY: webhooks with secrets are refused")
        elif self.settings.secret_key is not None:
            load_sealer(self.settings)
            found.append("secrets are sealed")
        ring = load_key_ring(self.settings)
        found.append("histories are encrypted" if ring else "histories are clear")
        return ", ".join(found)

    async def _check_temporal(self) -> str:
        try:
            self.client = await self._resources.enter_async_context(connect_temporal(self.settings))
        except StartupError:
            if uses_own_cluster():
                raise
            return f"does not run; `sevenfold dev` starts {find_binary().name} on this machine"
        await check_open_workflows(self.client, load_key_ring(self.settings), self.settings.task_queue)
        return f"{self.client.service_client.config.target_host}, namespace {self.client.namespace}"

    async def _check_attributes(self) -> str:
        if missing := await find_missing_attributes(self._connected):
            return f"{', '.join(missing)} are missing: the first start creates them, if its account may"
        return "all there"

    async def _check_workers(self) -> str:
        count = (await count_workers(self._connected, self.settings.task_queue)).total()
        if not count:
            return f"none polls {self.settings.task_queue}: jobs wait until `sevenfold worker` runs"
        return f"{count} poll {self.settings.task_queue}"

    async def _check_clock(self) -> str:
        before = time.time()
        described = await describe_task_queue(
            self._connected, self.settings.task_queue, WORKFLOW_TASKS, timeout=_TIMEOUT
        )
        latest = max((one.last_access_time.ToMicroseconds() / 1e6 for one in described.pollers), default=None)
        if latest is None:
            return "not compared: no worker polls"
        if latest - before > _MAX_CLOCK_OFFSET:
            raise StartupError(
                f"Temporal's clock is {latest - before:.0f} s ahead of this machine's. Deadlines compare the two: "
                "synchronize the clocks (NTP)."
            )
        return "not behind Temporal's"

    async def _check_payloads(self) -> str:
        stores = expiring_stores(self._connected.data_converter)
        for store in stores:
            try:
                await store.check_writable()
            except PayloadStoreError as error:
                raise StartupError(str(error)) from None
        bucket = self.settings.payloads_s3_bucket
        return f"the bucket {bucket}" if bucket else f"{self.settings.data_dir / 'payloads'}"

    async def _check_streams(self) -> str:
        async with open_stream_log(self.settings, self._connected, load_key_ring(self.settings)):
            return "in Redis" if self.settings.redis_url is not None else "in the histories of their runs"

    @property
    def _connected(self) -> Client:
        assert self.client is not None, "these checks follow that of Temporal"  # noqa: S101
        return self.client


async def _find(part: str, check: Callable[[], Awaitable[str]]) -> Finding:
    try:
        return Finding(part, True, await check())
    except StartupError as error:
        return Finding(part, False, str(error))
    except RPCError as error:
        return Finding(part, False, f"Temporal answers: {error.message}")


async def _check_broker(name: str, broker: BrokerConfig) -> str:
    """Connects without consuming."""
    transport = build_transport(name, broker.model_copy(update={"consume": []}))
    try:
        async with asyncio.timeout(_BROKER_SECONDS):  # Some clients try without end.
            await transport.start(_refuse)
        return f"{broker.kind} answers"
    except TimeoutError:
        raise StartupError(f"{broker.kind} does not answer within {_BROKER_SECONDS:g} s") from None
    except Exception as error:  # Whatever the client raises.
        raise StartupError(f"{broker.kind} does not answer: {type(error).__name__}: {error}") from None
    finally:
        await transport.stop()


async def _refuse(_: BrokerMessage) -> None:
    raise AssertionError("nothing is consumed")
