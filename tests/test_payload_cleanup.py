"""What the gateway does for itself, once a day."""

import asyncio
import os
import time

from tests.support.stack import Stack


async def test_cleanup_schedule_removes_expired_payloads_only(stack: Stack) -> None:
    kept = await stack.query("k" * 300_000, agent="echo")
    assert kept.status_code == 200
    files = [path for path in (stack.settings.data_dir / "payloads").rglob("*/*") if path.is_file()]
    assert files
    expired = files[0].with_name("0" * 64)
    expired.write_bytes(b"of a run that is long gone")
    beyond = time.time() - (stack.settings.retention_days + 3) * 86_400
    os.utime(expired, (beyond, beyond))

    await stack.temporal.get_schedule_handle("schedule:sevenfold:PayloadCleanup").trigger()
    async with asyncio.timeout(20):
        while expired.exists():
            await asyncio.sleep(0.1)
    assert all(path.exists() for path in files)
    again = await stack.run(kept.json()["queryId"])
    assert again["result"]["response"] == "k" * 300_000
