"""One running product per configuration and test process, for all tests that do not break it."""

import logging
import os
from collections.abc import AsyncIterator, Iterator

import pytest
import structlog

from tests.support.redis_server import RedisServer, redis_server
from tests.support.stack import Stack, running_stack

# Thousands of requests each have a line, which nobody reads: formatting them takes a tenth of the suite's time.
structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))

# Each test process has Temporal servers of its own, on two cores in all: with one thread each they take a seventh
# less processor time.
os.environ.setdefault("GOMAXPROCS", "1")

# Test processes share the files. These last longest, mostly waiting. They start first, so that no process works alone
# at the end, and one after each other file, so that some processes work while others wait.
_LONG = (
    "test_stream_faults.py",
    "test_budgets.py",
    "test_agent_failures.py",
    "test_crashes.py",
    "test_limits_across_workers.py",
    "test_replay.py",
    "test_erasure.py",
    "test_broker_faults.py",
    "test_brokers.py",
    "test_streaming.py",
    "test_circuit_breakers.py",
    "test_openapi.py",
    "test_quickstarts.py",
    "test_developer_commands.py",
    "test_tracing.py",
    "test_s3_payloads.py",
    "test_webhook_faults.py",
    "test_webhook_schedule.py",
    "test_webhooks.py",
    "test_workflow_agent.py",
    "test_durable_crashes.py",
    "test_openai_faults.py",
)


# Whole products that are started, killed and searched again and again: `make test` leaves them out, so that it takes
# less than 12 minutes; `make test-all` runs them too.
_SLOW = frozenset(
    {
        "test_broker_campaign.py",
        "test_broker_passwords.py",
        "test_codec_endpoint.py",
        "test_codec_keys.py",
        "test_erasure_crashes.py",
        "test_encrypted_histories.py",
        "test_encryption_at_rest.py",
        "test_keys_at_faults.py",
        "test_listen.py",
        "test_rolling_restart.py",
        "test_sealed_urls.py",
        "test_sqs.py",
        "test_webhook_updates.py",
        "test_worker_death.py",
        "test_worker_versioning.py",
    }
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.name in _SLOW:
            item.add_marker(pytest.mark.slow)
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.timeout(1_200))
    others = [name for name in dict.fromkeys(item.path.name for item in items) if name not in _LONG]
    place = {name: (at, 0) for at, name in enumerate(_LONG)} | {name: (at, 1) for at, name in enumerate(others)}
    items.sort(key=lambda item: place[item.path.name])


@pytest.fixture(scope="session")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """The product with the tests' agents and no other configuration."""
    async with running_stack(tmp_path_factory.mktemp("stack")) as running:
        yield running


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis server; a test that kills it starts it again."""
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="session")
async def redis_stack(redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """The product with its streams in Redis."""
    async with running_stack(tmp_path_factory.mktemp("redis-stack"), redis_url=redis.url) as running:
        yield running
