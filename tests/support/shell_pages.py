"""Runs the shell blocks of a page as a reader would paste them: in order, in one shell."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.support.markdown import Block

_STATUS = re.compile(r"^docs-test-http (\d{3}) (\S+)$", re.MULTILINE)
_SECONDS = 50

# curl as the reader has it, with three additions: its status goes to stderr, no proxy comes in between, and a stream
# without an end is left after DOCS_TEST_SECONDS, which is no failure then.
_CURL = """#!/bin/sh
limit=${DOCS_TEST_SECONDS:+--max-time $DOCS_TEST_SECONDS}
"$DOCS_TEST_CURL" --noproxy '*' $limit -w '%{stderr}\\ndocs-test-http %{http_code} %{url_effective}\\n' "$@"
code=$?
[ $code -eq 28 ] && [ -n "$limit" ] && exit 0
exit $code
"""


@dataclass(frozen=True)
class Ran:
    """What a block printed, and the status and address of its HTTP requests."""

    block: Block
    output: str
    errors: str
    requests: list[tuple[int, str]]


class PageFailedError(AssertionError):
    """A command of a page failed."""


async def run_blocks(
    blocks: Sequence[Block], *, addresses: Mapping[str, str], directory: Path, environment: Mapping[str, str]
) -> list[Ran]:
    """Runs the blocks in one bash, which stops at the first command that fails. `addresses` maps the hosts and ports
    that the pages print to those of the test. Every process that the page left in the background is ended.
    """
    bin_directory = _commands(directory)
    script = directory / "page.sh"
    script.write_text(_script(blocks, addresses, directory), encoding="utf-8")
    process = await asyncio.create_subprocess_exec(
        "bash",
        str(script),
        cwd=directory / "checkout",
        env={
            **environment,
            "PATH": f"{bin_directory}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "DOCS_TEST_CURL": _which("curl"),
        },
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(_SECONDS):
            code = await process.wait()
    except TimeoutError:
        code = -1
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # the session that was started above
        await process.wait()
    ran = [_ran(block, directory, number) for number, block in enumerate(blocks) if _exists(directory, number)]
    if code:
        last = ran[-1]
        why = f"took more than {_SECONDS} s" if code == -1 else f"ended with {code}"
        printed = f"{last.output[-2000:]}\n{last.errors[-2000:]}"
        raise PageFailedError(f"the block at line {last.block.line} {why}:\n{last.block.text}\n{printed}")
    return ran


def _commands(directory: Path) -> Path:
    found = directory / "bin"
    found.mkdir(exist_ok=True)
    (found / "curl").write_text(_CURL, encoding="utf-8")
    (found / "curl").chmod(0o755)
    return found


def _which(command: str) -> str:
    return next(
        str(Path(part, command)) for part in os.environ["PATH"].split(":") if os.access(Path(part, command), os.X_OK)
    )


def _script(blocks: Sequence[Block], addresses: Mapping[str, str], directory: Path) -> str:
    lines = ["set -eo pipefail"]
    for number, block in enumerate(blocks):
        lines.append(f"exec >'{directory}/{number}.out' 2>'{directory}/{number}.err'")
        limit = re.fullmatch(r"stop after (\d+) s", block.directive or "")
        lines.append(f"export DOCS_TEST_SECONDS={limit[1]}" if limit else "unset DOCS_TEST_SECONDS")
        text = block.text
        for printed, used in addresses.items():
            text = text.replace(printed, used)
        lines.append(text)
    return "\n".join(lines) + "\n"


def _exists(directory: Path, number: int) -> bool:
    return (directory / f"{number}.out").exists()


def _ran(block: Block, directory: Path, number: int) -> Ran:
    output = (directory / f"{number}.out").read_text(encoding="utf-8", errors="replace")
    errors = (directory / f"{number}.err").read_text(encoding="utf-8", errors="replace")
    requests = [(int(status), url) for status, url in _STATUS.findall(errors)]
    return Ran(block, output, errors, requests)
