"""Only one module reads what the SDK leaves encoded: elsewhere, encrypted payloads would be shown as they are."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.stack import ROOT

_ROOMS = ("activities", "adapters", "api", "cli", "contracts", "runtime", "workflows")
_READER = "adapters/temporal/encoded.py"

# Attributes of Temporal's messages that hold payloads or failures; `memo` only as `….memo.fields`.
_ENCODED = frozenset(
    {
        "encoded_attributes",
        "fields",
        "last_failure",
        "last_heartbeat_details",
        "payloads",
        "pending_activities",
        "raw_info",
        "raw_memo",
    }
)

# Makers of payloads and failures, which the codec or the payload store meets afterwards. The workflow runner
# copies memos without reading them; and others with a field of such a name.
_MAKERS = frozenset(
    {
        "adapters/encryption/failure_converter.py",
        "adapters/encryption/payload_codec.py",
        "adapters/encryption/remote_codec.py",
        "adapters/payloads/directory.py",
        "adapters/payloads/s3.py",
        "adapters/payloads/stores.py",
        "adapters/streams/temporal/batches.py",
        "api/operations/codec.py",  # the remote codec's own field
        "runtime/temporal/payload_converter.py",
        "runtime/temporal/payloads.py",
        "runtime/temporal/workflow_runner.py",
        "workflows/maintenance/erasure.py",  # counts payloads
    }
)


def _product_files() -> Iterator[Path]:
    for room in _ROOMS:
        yield from (ROOT / room).rglob("*.py")
    yield from (ROOT / name for name in ("worker.py", "connector.py"))


def _findings(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(attr="fields", value=ast.Attribute(attr="memo")):
                yield f"line {node.lineno}: .memo.fields"
            case ast.Attribute(attr=name) if name in _ENCODED - {"fields"}:
                yield f"line {node.lineno}: .{name}"
            case ast.ImportFrom(module=str(module), names=names):
                imported = {f"{module}.{one.name}" for one in names}
                if imported & {"temporalio.api.common.v1.Payload", "temporalio.api.failure.v1.Failure"}:
                    yield f"line {node.lineno}: import of raw payloads or failures"


def test_only_one_module_reads_encoded_payloads() -> None:
    found = {}
    for path in _product_files():
        name = str(path.relative_to(ROOT))
        if name != _READER and name not in _MAKERS and (lines := list(_findings(ast.parse(path.read_text())))):
            found[name] = lines
    assert found == {}, f"read these by {_READER}"


@pytest.mark.parametrize(
    "line",
    [
        "description.raw_description.pending_activities[0]",
        "description.raw_description.workflow_execution_info.memo.fields",
        "activity.last_failure.message",
        "event.workflow_execution_started_event_attributes.input.payloads",
        "from temporalio.api.common.v1 import Payload",
    ],
)
def test_raw_access_is_found(line: str) -> None:
    assert list(_findings(ast.parse(line)))
