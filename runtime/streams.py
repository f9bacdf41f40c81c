"""Opens the stream log: Redis if it is configured, else the runs' histories."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from temporalio.client import Client

from sevenfold.adapters.encryption.key_ring import KeyRing
from sevenfold.adapters.streams.hub import StreamHubs
from sevenfold.adapters.streams.temporal.log import TemporalStreamLog
from sevenfold.contracts.runs.streams import StreamLog
from sevenfold.runtime.config.server_urls import REDIS_FORM, check_server_url
from sevenfold.runtime.config.settings import Settings
from sevenfold.runtime.services import Services
from sevenfold.runtime.startup import StartupError

_VARIABLE = "SEVENFOLD_REDIS_URL"


@asynccontextmanager
async def open_streams(services: Services, *, has_local_worker: bool) -> AsyncIterator[StreamHubs]:
    """The stream hubs of this process while the block runs. `has_local_worker`: API and worker share the process.
    Raises StartupError.
    """
    async with open_stream_log(services.settings, services.client, services.codec_keys) as log:
        yield StreamHubs(log, has_local_worker=has_local_worker)


@asynccontextmanager
async def open_stream_log(settings: Settings, client: Client, keys: KeyRing) -> AsyncIterator[StreamLog]:
    """The configured log while the block runs. Raises StartupError."""
    if settings.redis_url is None:
        yield TemporalStreamLog(client, settings.task_queue)
        return
    url = settings.redis_url.get_secret_value()
    check_server_url(_VARIABLE, url, REDIS_FORM)
    # Imported on use: it is an extra.
    try:
        from sevenfold.adapters.streams.redis.log import RedisUnusableError, open_redis_log  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise StartupError(
            f"{_VARIABLE} needs the extra `redis` ({error}): install 'redis' beside Sevenfold, "
            "from a checkout with: .venv/bin/pip install -e '.[redis]'"
        ) from None
    lifetime = timedelta(days=settings.retention_days + 1).total_seconds()
    try:
        async with open_redis_log(url, client.namespace, lifetime, keys) as log:
            yield log
    except RedisUnusableError as error:
        raise StartupError(f"{_VARIABLE} cannot be used: {error}") from None
