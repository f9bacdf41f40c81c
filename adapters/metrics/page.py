"""The page of a process's metrics: ours, and those of Temporal's SDK."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable

import httpx
import structlog
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

log = structlog.get_logger(__name__)

_TIMEOUT_SECONDS = 1.0


class MetricsPage:
    """Renders the page. `sdk_address`: where the SDK shows its metrics, on loopback. `refresh` brings up to
    date what is only measured when it is shown.
    """

    def __init__(self, sdk_address: str, refresh: Callable[[], Awaitable[None]] | None = None) -> None:
        self._sdk_url = f"http://{sdk_address}/metrics"
        self._refresh = refresh

    async def render(self, accept: str) -> tuple[bytes, str]:
        """Returns the page and its media type: OpenMetrics if it is accepted, else Prometheus's text format."""
        if self._refresh is not None:
            await self._refresh()
        sdk = await self._load_sdk()
        encode, media_type = choose_encoder(accept)

        def build() -> bytes:
            if not media_type.startswith("application/openmetrics-text"):
                return encode(REGISTRY) + sdk.encode()
            # The formats differ in the names of counters and at the end.
            return encode(_Both(sdk))

        return await asyncio.to_thread(build), media_type

    async def _load_sdk(self) -> str:
        try:
            # Without TLS: loading the certificates would take longer than all the rest.
            transport = httpx.AsyncHTTPTransport(verify=False, trust_env=False)
            async with httpx.AsyncClient(transport=transport, timeout=_TIMEOUT_SECONDS, trust_env=False) as http:
                answer = await http.get(self._sdk_url)
                return answer.raise_for_status().text
        except httpx.HTTPError as error:
            log.warning("the metrics of Temporal's SDK cannot be read", error=str(error))
            return ""


class _Both(CollectorRegistry):
    """Our metrics, followed by the SDK's."""

    def __init__(self, sdk: str) -> None:
        super().__init__()
        self._sdk = sdk

    def collect(self) -> Iterable[Metric]:
        yield from REGISTRY.collect()
        yield from text_string_to_metric_families(self._sdk)
