"""Where streams are kept: in the runs' own histories, or in Redis if one is configured."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from temporalio.client import Client

from adapters.streams.live import LiveStreams
from adapters.streams.temporal_log import TemporalStreamLog
from contracts.streams import StreamLog
from runtime.services import Services
from runtime.settings import Settings
from runtime.startup import StartupError


@asynccontextmanager
async def opened_streams(services: Services, *, local: bool) -> AsyncIterator[LiveStreams]:
    """All streams of this process; `local` when API and worker share it. Raises StartupError."""
    async with _opened_log(services.settings, services.client) as log:
        yield LiveStreams(log, local=local)


@asynccontextmanager
async def _opened_log(settings: Settings, client: Client) -> AsyncIterator[StreamLog]:
    if settings.redis_url is None:
        yield TemporalStreamLog(client, settings.task_queue)
        return
    # Imported here, for those who have a Redis: it is an extra.
    try:
        from adapters.streams.redis_log import RedisUnusableError, opened_redis_log  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise StartupError(
            f"SEVENFOLD_REDIS_URL needs the extra `redis` ({error}): install 'redis' beside Sevenfold, "
            "from a checkout with: .venv/bin/pip install -e '.[redis]'"
        ) from None
    lifetime = timedelta(days=settings.retention_days + 1).total_seconds()
    try:
        async with opened_redis_log(settings.redis_url.get_secret_value(), client.namespace, lifetime) as log:
            yield log
    except RedisUnusableError as error:
        raise StartupError(f"SEVENFOLD_REDIS_URL cannot be used: {error}") from None
