"""One running product for all tests that do not break it."""

from collections.abc import AsyncIterator

import pytest

from tests.support.stack import Stack, running_stack

# Two processes share the files: the longest begin, so that neither waits for the other at the end.
_LONG = (
    "test_streaming.py",
    "test_limits_across_workers.py",
    "test_broker_faults.py",
    "test_event_ordering.py",
    "test_stream_faults.py",
    "test_openapi.py",
    "test_crashes.py",
    "test_brokers.py",
    "test_circuit_breakers.py",
    "test_replay.py",
    "test_webhook_faults.py",
    "test_stream_examples.py",
    "test_endpoint_health.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: _LONG.index(item.path.name) if item.path.name in _LONG else len(_LONG))


@pytest.fixture(scope="session")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    async with running_stack(tmp_path_factory.mktemp("stack")) as running:
        yield running
