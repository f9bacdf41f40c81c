"""Runs the blocks of a page as a reader would: files are written, commands pasted, in order, in one shell.

A `<!-- docs-test: … -->` comment before a block says what the reader does differently, in phrases with commas:

- `stop after 5 s`: leaves a stream without an end.
- `in the background until "text"`: runs it in a terminal of its own, and goes on when it has printed the text.
- `after Ctrl-C`: ends what runs in the background first.
- `repeat for 20 s until "text"`: sends it again until it prints the text.
- `in the checkout`: there, and not in the reader's own folder.
"""

import asyncio
import os
import re
import shlex
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.support.markdown import Block

_STATUS = re.compile(r"^docs-test-http (\d{3}) (\S+)$", re.MULTILINE)
_SECONDS = 50
_START_SECONDS = 90

# A block that begins with a comment that is a name is a file.
_FILE_NAME = re.compile(r"# (?P<name>[\w.-]+\.(?:py|toml))$", re.MULTILINE)

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
    blocks: Sequence[Block],
    *,
    addresses: Mapping[str, str],
    directory: Path,
    environment: Mapping[str, str],
    folder: str = "checkout",
    seconds: float = _SECONDS,
) -> list[Ran]:
    """Runs the blocks in one bash, in a folder of the directory, which stops at the first command that fails.
    `addresses` maps the hosts and ports that pages print to those of the test. Every process that a page left in the
    background is ended.
    """
    bin_directory = _commands(directory)
    script = directory / "page.sh"
    script.write_text(_script(blocks, addresses, directory), encoding="utf-8")
    process = await asyncio.create_subprocess_exec(
        "bash",
        str(script),
        cwd=directory / folder,
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
        async with asyncio.timeout(seconds):
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
        why = f"took more than {seconds} s" if code == -1 else f"ended with {code}"
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
    lines = ["set -eo pipefail", _HELPERS]
    for number, block in enumerate(blocks):
        directive = block.directive or ""
        out, err = f"'{directory}/{number}.out'", f"'{directory}/{number}.err'"
        lines.append(f"exec >{out} 2>{err}")
        limit = re.search(r"stop after (\d+) s", directive)
        lines.append(f"export DOCS_TEST_SECONDS={limit[1]}" if limit else "unset DOCS_TEST_SECONDS")
        text = block.text
        for printed, used in addresses.items():
            text = text.replace(printed, used)
        if "after Ctrl-C" in directive:
            lines.append("end_background")
        if "in the checkout" in directive:
            text = f"cd '{directory}/checkout' && {text}"
        lines.append(_command(block, text, directive, out, err))
    return "\n".join(lines) + "\n"


# What runs in the background of a script ignores SIGINT; SIGTERM means the same to it.
_HELPERS = """end_background() { for one in $(jobs -p); do kill -TERM $one || true; done; wait; }
await() {
  for _ in $(seq $(($1 * 10))); do grep -qF -- "$2" "$3" "$4" && return; sleep 0.1; done
  cat "$3" "$4"; exit 1
}
"""


def _command(block: Block, text: str, directive: str, out: str, err: str) -> str:
    if file := _FILE_NAME.match(text):
        return f"cat > {file['name']} <<'END_OF_FILE'\n{text}\nEND_OF_FILE"
    if background := re.search(r'in the background until "(.+?)"', directive):
        return f"bash -c {shlex.quote(text)} &\nawait {_START_SECONDS} {shlex.quote(background[1])} {out} {err}"
    if repeated := re.search(r'repeat for (\d+) s until "(.+)"', directive):
        pause, wanted = 0.3, shlex.quote(repeated[2])
        tries = int(int(repeated[1]) / pause)
        body = f"exec >{out} 2>{err}\n( {text} ) || true\ngrep -qF -- {wanted} {out} && break\nsleep {pause}"
        return f"for _ in $(seq {tries}); do\n{body}\ndone\ngrep -qF -- {wanted} {out}"
    return text


def is_file(block: Block) -> bool:
    """Whether the block is the content of a file, which its first line names."""
    return block.language in ("python", "toml") and _FILE_NAME.match(block.text) is not None


def _exists(directory: Path, number: int) -> bool:
    return (directory / f"{number}.out").exists()


def _ran(block: Block, directory: Path, number: int) -> Ran:
    output = (directory / f"{number}.out").read_text(encoding="utf-8", errors="replace")
    errors = (directory / f"{number}.err").read_text(encoding="utf-8", errors="replace")
    requests = [(int(status), url) for status, url in _STATUS.findall(errors)]
    return Ran(block, output, errors, requests)
