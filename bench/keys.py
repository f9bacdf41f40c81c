"""The suite of keys: the cost of a key's check, and `/query` with keys beside `/query` without."""

import asyncio
import random
import statistics
import time
from pathlib import Path

from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter

from bench.sevenfold import CONFIG, Ports, Sevenfold, run_sevenfold
from bench.suite import Aim, Suite, p95
from sevenfold.adapters.access.authenticator import Authenticator
from sevenfold.adapters.access.directory import AccessDirectory
from sevenfold.adapters.access.last_use import LastUseRecorder
from sevenfold.adapters.access.registry import TenantRegistryClient
from sevenfold.adapters.access.snapshot import ConfiguredAccess
from sevenfold.adapters.quotas.rates import RateQuotas
from sevenfold.api.http.authentication import AuthenticationMiddleware
from sevenfold.contracts.access.api_keys import NewKey, generate_key
from sevenfold.contracts.access.principals import Scope
from sevenfold.contracts.config.access import KeyConfig, TenantConfig

TENANTS, KEYS_EACH = 200, 5
CALLS = 300
CHECKS = 5_000

TIMES = " \N{MULTIPLICATION SIGN}"
_SCOPES = ("runs:read", "runs:write")


async def _keys(sevenfold: Sevenfold, work: Path) -> list[float]:
    keys = {f"tenant-{number}": [generate_key() for _ in range(KEYS_EACH)] for number in range(TENANTS)}
    one = keys[f"tenant-{TENANTS // 2}"][0]
    config = work / "keys.toml"
    config.write_text(CONFIG + "".join(_section(tenant, key) for tenant, own in keys.items() for key in own))
    data = work / f"keys-{random.randrange(10**9)}"
    async with run_sevenfold(work, data, Ports.free(), {"SEVENFOLD_CONFIG": str(config)}) as keyed:
        keyed.http_client.headers = f"Authorization: Bearer {one.text}\r\n"
        without, with_key = await ask_in_turn(sevenfold, keyed)
        checks, guesses = await _checks(keyed, keys, one)
    middle, keyed_middle = statistics.median(without), statistics.median(with_key)
    return [keyed_middle / middle, middle, keyed_middle, p95(checks), p95(guesses)]


def _section(tenant: str, key: NewKey) -> str:
    scopes = ", ".join(f'"{scope}"' for scope in _SCOPES)
    return f'\n[[tenants.{tenant}.keys]]\nid = "{key.key_id}"\nhash = "{key.hash}"\nscopes = [{scopes}]\n'


async def ask_in_turn(*servers: Sevenfold) -> list[list[float]]:
    """The times in ms of each server, asked in turn, so that whatever the machine does meets both."""
    times: list[list[float]] = [[] for _ in servers]
    for number in range(CALLS + 30):
        for server, own in zip(servers, times, strict=True):
            started_at = time.perf_counter()
            await server.query()
            if number >= 30:
                own.append((time.perf_counter() - started_at) * 1000)
    return times


async def _checks(keyed: Sevenfold, keys: dict[str, list[NewKey]], one: NewKey) -> tuple[list[float], list[float]]:
    """The times in ms of the check of a right key, and of a guess, in this process."""
    client = await Client.connect(f"127.0.0.1:{keyed.ports.temporal}", data_converter=pydantic_data_converter)
    scopes = frozenset(map(Scope, _SCOPES))
    tenants = {
        tenant: TenantConfig(keys=[KeyConfig(id=key.key_id, hash=key.hash, scopes=scopes) for key in own])
        for tenant, own in keys.items()
    }
    registry = TenantRegistryClient(client, "sevenfold")
    directory = AccessDirectory(registry, ConfiguredAccess.from_config(tenants))
    authenticator = Authenticator(directory, LastUseRecorder(registry), None, None, requires_credentials=True)
    rates = RateQuotas(client, "sevenfold")
    middleware = AuthenticationMiddleware(_accept, authenticator, directory, rates)
    checks = await _timed(middleware, f"Bearer {one.text}")
    guesses = await _timed(middleware, f"Bearer {generate_key().text}")
    await authenticator.aclose()
    return checks, guesses


async def _timed(middleware: AuthenticationMiddleware, credential: str) -> list[float]:
    times = []
    for _ in range(CHECKS):
        headers = [(b"host", b"localhost"), (b"authorization", credential.encode()), (b"content-length", b"15")]
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/api/agent/query",
            "query_string": b"",
            "headers": headers,
        }
        started_at = time.perf_counter()
        await middleware(scope, _receive, _send)
        times.append((time.perf_counter() - started_at) * 1000)
        await asyncio.sleep(0)
    return times


async def _accept(scope: object, receive: object, send: object) -> None:
    await _send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})


async def _receive() -> dict[str, object]:
    raise AssertionError("a body was read")


async def _send(message: object) -> None:
    pass


KEYS = Suite(
    "keys",
    [
        Aim(
            f"`/query` with {TENANTS * KEYS_EACH:,} keys of {TENANTS} tenants against none, p50",
            TIMES,
            1.03,
            digits=3,
        ),
        Aim("p50 of `/query` without keys", " ms", digits=2),
        Aim("p50 of `/query` with a key", " ms", digits=2),
        Aim("check of a key, p95", " ms", 0.3, digits=3),
        Aim("refusal of a guess, with its answer, p95", " ms", digits=3),
    ],
    _keys,
)
