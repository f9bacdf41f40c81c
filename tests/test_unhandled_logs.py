"""What an encrypted gateway logs of exceptions that nobody handles: their types and places, and no message."""

import subprocess
import sys

import pytest

PROGRAM = """
import asyncio
import threading
import warnings

from sevenfold.runtime.process.logs import configure_logs

configure_logs({"": "info"}, hide_messages=HIDDEN)


def fails(text):
    raise ValueError(text)


class Finalized:
    def __del__(self):
        fails("planted-del")


async def main():
    loop = asyncio.get_running_loop()
    loop.call_soon(fails, "planted-callback")
    background = loop.create_task(asyncio.sleep(0))
    await background
    lost = loop.create_task(lose("planted-task"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    del lost
    thread = threading.Thread(target=fails, args=("planted-thread",))
    thread.start()
    thread.join()
    Finalized()
    warnings.warn("planted-warning")


async def lose(text):
    fails(text)


asyncio.run(main())
fails("planted-end")
"""


def run(*, hidden: bool) -> str:
    program = PROGRAM.replace("HIDDEN", str(hidden))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    return done.stderr


def test_messages_of_unhandled_exceptions_are_in_no_log_of_an_encrypted_gateway() -> None:
    output = run(hidden=True)
    assert "planted" not in output
    assert output.count("ValueError") == 5
    assert "UserWarning at" in output
    assert output.count(", in fails") == 5, "their places are shown"


@pytest.mark.parametrize("where", ["callback", "task", "thread", "del", "warning", "end"])
def test_without_encryption_their_messages_are_shown(where: str) -> None:
    assert f"planted-{where}" in _shown()


_output: list[str] = []


def _shown() -> str:
    if not _output:
        _output.append(run(hidden=False))
    return _output[0]
