"""The page of a process's metrics: ours, and those of Temporal's SDK."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence

import httpx
import structlog
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

log = structlog.get_logger(__name__)

_TIMEOUT_SECONDS = 1.0


class MetricsPage:
    """Renders the page. `sdk_address`: where the SDK shows its metrics, on loopback. `more`: metrics that only some
    processes have, which `refresh` brings up to date.
    """

    def __init__(
        self,
        sdk_address: str,
        more: CollectorRegistry | None = None,
        refresh: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._registries = [REGISTRY, *([more] if more else [])]
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
                return b"".join(map(encode, self._registries)) + sdk.encode()
            # The formats differ in the names of counters and at the end.
            return encode(_Joined(self._registries, sdk))

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


class _Joined(CollectorRegistry):
    """Several registries as one, and the SDK's metrics."""

    def __init__(self, registries: Sequence[CollectorRegistry], sdk: str) -> None:
        super().__init__()
        self._registries = registries
        self._sdk = sdk

    def collect(self) -> Iterable[Metric]:
        for registry in self._registries:
            yield from registry.collect()
        yield from text_string_to_metric_families(self._sdk)
