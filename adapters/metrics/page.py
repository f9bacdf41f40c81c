"""The page of a process's metrics: ours, and those of Temporal's SDK."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence

import httpx
import structlog
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from sevenfold.contracts.access.principals import Principal
from sevenfold.contracts.identity import DEFAULT_TENANT

log = structlog.get_logger(__name__)

_TIMEOUT_SECONDS = 1.0

# Whether a sample with these labels is shown.
IsVisible = Callable[[Mapping[str, str]], bool]


def _everything(_: Mapping[str, str]) -> bool:
    return True


def visible_to(principal: Principal, agents: Collection[str] | None) -> IsVisible:
    """Returns what a reader may see. Administrators and the tenant `default` see all; others see no other tenants, no
    agents that their tenant may not use (None: it may use all) and no brokers.
    """
    if principal.is_admin or principal.tenant == DEFAULT_TENANT:
        return _everything
    tenant = principal.tenant

    def is_visible(labels: Mapping[str, str]) -> bool:
        agent = labels.get("agent")
        return (
            labels.get("tenant", tenant) == tenant
            and (agent is None or agents is None or agent in agents)
            and "broker" not in labels
            and "via" not in labels
        )

    return is_visible


class MetricsPage:
    """Renders the page. `sdk_address`: where the SDK shows its metrics, on loopback. `refresh` brings up to date
    what is measured only when it is shown. `more`: metrics beside those that every process has.
    """

    def __init__(
        self, sdk_address: str, *refresh: Callable[[], Awaitable[object]], more: CollectorRegistry | None = None
    ) -> None:
        self._registries = [REGISTRY, *([more] if more else [])]
        self._sdk_url = f"http://{sdk_address}/metrics"
        self._refresh = refresh

    async def render(self, accept: str, is_visible: IsVisible = _everything) -> tuple[bytes, str]:
        """Returns the page and its media type: OpenMetrics if it is accepted, else Prometheus's text format.
        `is_visible`: whether its reader may see a sample with these labels.
        """
        await asyncio.gather(*(refresh() for refresh in self._refresh))
        sdk = await self._load_sdk()
        try:
            encode, media_type = choose_encoder(accept)
        except TypeError:  # The library's, for a version that is no number.
            encode, media_type = choose_encoder("")

        def build() -> bytes:
            if not media_type.startswith("application/openmetrics-text"):
                return encode(_Joined(self._registries, "", is_visible)) + sdk.encode()
            # The formats differ in the names of counters and at the end.
            return encode(_Joined(self._registries, sdk, is_visible))

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

    def __init__(self, registries: Sequence[CollectorRegistry], sdk: str, is_visible: IsVisible) -> None:
        super().__init__()
        self._registries = registries
        self._sdk = sdk
        self._is_visible = is_visible

    def collect(self) -> Iterable[Metric]:
        for registry in self._registries:
            yield from map(self._select, registry.collect())
        yield from text_string_to_metric_families(self._sdk)

    def _select(self, family: Metric) -> Metric:
        if self._is_visible is not _everything:
            family.samples = [sample for sample in family.samples if self._is_visible(sample.labels)]
        return family
