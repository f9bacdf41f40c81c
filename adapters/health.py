"""Checks the dependencies of a process, for its probes."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import structlog
from temporalio.client import Client
from temporalio.common import WorkerDeploymentVersion
from temporalio.service import RPCError

from sevenfold.adapters.metrics.process import set_dependency
from sevenfold.adapters.payloads.stores import PayloadStoreError, expiring_stores
from sevenfold.adapters.temporal.disk_space import DiskSpace
from sevenfold.adapters.temporal.pollers import QueuePollers, WorkerPollers
from sevenfold.adapters.temporal.shared_answers import SharedAnswers
from sevenfold.contracts.operations.health import OK, Health, Readiness
from sevenfold.contracts.runs.streams import StreamLog, StreamLogError

log = structlog.get_logger(__name__)

_CHECK_SECONDS = 2.0
# Probes of several machines share an answer.
_SHARED_SECONDS = 0.5

# Without these nothing can be accepted. Without the others a part of the work waits or fails.
_REQUIRED = frozenset({"temporal", "storage"})


@dataclass(frozen=True)
class HealthChecks:
    """The checks of one process. `has_worker`: it has a worker of its own, so it is not ready without one. An API
    alone accepts jobs meanwhile, and is degraded. `stream_log`: None in a process without streams.
    `build`: that of its workers, if they have a build id. `find_lost_brokers`: the names of brokers that are not
    connected.
    """

    client: Client
    task_queue: str
    disk: DiskSpace
    stream_log: StreamLog | None = None
    has_worker: bool = False
    build: WorkerDeploymentVersion | None = None
    find_lost_brokers: Callable[[], list[str]] = list
    shared: SharedAnswers = field(default_factory=lambda: SharedAnswers(_SHARED_SECONDS))
    failing_since: dict[str, datetime] = field(default_factory=dict)
    running: dict[str, asyncio.Future[str | None]] = field(default_factory=dict)

    async def check(self) -> Readiness:
        """Returns what each dependency answers within two seconds."""
        return await self.shared.get("readiness", self._check)

    async def _check(self) -> Readiness:
        checks: Mapping[str, Callable[[], Awaitable[str | None]]] = {
            "temporal": self._check_temporal,
            "worker": self._check_worker,
            "build": self._check_build,
            "storage": self._check_storage,
            "payloads": self._check_payloads,
            "streams": self._check_streams,
            "brokers": self._check_brokers,
        }
        found = await asyncio.gather(*(self._run(name, check) for name, check in checks.items()))
        reasons = dict(zip(checks, found, strict=True))
        if reasons["temporal"] is not None:
            reasons["worker"] = None
        if reasons["temporal"] is not None or reasons["worker"] is not None:
            reasons["build"] = None  # It has the same cause.
        missing = {name for name, reason in reasons.items() if reason is not None}
        for name in reasons:
            set_dependency(name, is_up=name not in missing)
            if name in missing:
                self.failing_since.setdefault(name, datetime.now(UTC))
            else:
                self.failing_since.pop(name, None)
        status = Health.OK
        if missing:
            is_failing = missing & (_REQUIRED | ({"worker"} if self.has_worker else set()))
            status = Health.FAILING if is_failing else Health.DEGRADED
        worker = "unknown" if "temporal" in missing else reasons["worker"] or OK
        shown = {**reasons, "temporal": reasons["temporal"] or OK, "worker": worker}
        return Readiness(status=status, since=dict(self.failing_since) or None, **shown)

    async def _run(self, name: str, check: Callable[[], Awaitable[str | None]]) -> str | None:
        """Returns what the check finds. One that hangs continues, and is not started a second time: a thread that
        waits for a disk cannot be cancelled, and threads are few.
        """
        running = self.running.get(name)
        if running is None or running.done():
            running = self.running[name] = asyncio.ensure_future(check())
        done, _ = await asyncio.wait({running}, timeout=_CHECK_SECONDS)
        return running.result() if done else f"no answer within {_CHECK_SECONDS:g} s"

    async def _check_temporal(self) -> str | None:
        try:
            is_healthy = await self.client.service_client.check_health()
        except (RPCError, RuntimeError):
            is_healthy = False
        return None if is_healthy else "Temporal does not answer"

    async def _check_worker(self) -> str | None:
        """Whether workers poll: those of this process, if it has some, else any."""
        try:
            found = await self._find_pollers()
        except RPCError:
            return "unknown"
        if self.build in found.builds if self.has_worker else found.builds:
            return None
        whose = f"workers of build {self.build.build_id}" if self.has_worker and self.build else found.unserved_text
        return f"no {whose} poll the task queue {self.task_queue}; start one with `sevenfold worker`"

    async def _check_build(self) -> str | None:
        """Whether each build that gets new runs has workers."""
        try:
            found = await self._find_pollers()
        except RPCError:
            return None  # `worker` reports it.
        if not found.unserved:
            return None
        return (
            f"new runs go to {found.unserved_text}, and none polls the task queue {self.task_queue}; see "
            "`sevenfold deploy status`"
        )

    async def _find_pollers(self) -> QueuePollers:
        """Two checks share an answer."""
        return await self.shared.get("pollers", lambda: WorkerPollers(self.client).check(self.task_queue))

    async def _check_storage(self) -> str | None:
        return self.disk.reason if self.disk.is_low else None

    async def _check_payloads(self) -> str | None:
        stores = expiring_stores(self.client.data_converter)
        try:
            await stores[0].check_writable()
        except PayloadStoreError as error:
            log.warning("large payloads cannot be stored", error=str(error))
            return "the store of large payloads takes no writes; requests and answers over 256 kB fail until it does"
        return None

    async def _check_streams(self) -> str | None:
        try:
            if self.stream_log is not None:
                await self.stream_log.check_reachable()
        except StreamLogError:
            return "Redis (SEVENFOLD_REDIS_URL) does not answer; streams wait for it"
        return None

    async def _check_brokers(self) -> str | None:
        lost = self.find_lost_brokers()
        return f"not connected: {', '.join(sorted(lost))}; their events wait" if lost else None
