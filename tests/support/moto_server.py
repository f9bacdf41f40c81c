"""moto's S3 server as a process: real HTTP, and a clock that can be set."""

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from bench.ports import free_port

BUCKET = "sevenfold-payloads"

# moto's server with a settable clock: what it stores is as many days old as the file specifies.
SERVER = """
import sys, datetime, pathlib, moto.server, moto.s3.models as models
clock, now = pathlib.Path(sys.argv.pop(1)), models.utcnow
models.utcnow = lambda: now() - datetime.timedelta(days=float(clock.read_text()))
moto.server.main()
"""


class S3:
    """The server seen from outside: without a signature, and without the libraries that are under test."""

    def __init__(self, url: str, process: subprocess.Popen[bytes], clock: Path) -> None:
        self.url = url
        self.process = process
        self.http = httpx.Client(base_url=url, trust_env=False, timeout=30)
        self._clock = clock
        self.store_as_of(0)

    def store_as_of(self, days: float) -> None:
        """What is stored from now on is that old."""
        self._clock.write_text(str(days))

    def put(self, key: str) -> str:
        self.http.put(f"/{BUCKET}/{key}", content=b"x").raise_for_status()
        return key

    def stored(self) -> list[str]:
        return re.findall(r"<Key>(.*?)</Key>", self.http.get(f"/{BUCKET}").text)


@contextmanager
def moto(directory: Path) -> Iterator[S3]:
    port, log, clock = free_port(), directory / "moto.log", directory / "clock"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(clock), "--host=127.0.0.1", f"--port={port}"],
            stdout=output,
            stderr=output,
        )
    s3 = S3(f"http://127.0.0.1:{port}", process, clock)
    try:
        until = time.monotonic() + 30
        while True:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            with suppress(httpx.TransportError):
                s3.http.get("/moto-api/")
                break
            time.sleep(0.1)
        yield s3
    finally:
        s3.http.close()
        process.kill()
        process.wait(10)


def aws_variables(directory: Path) -> dict[str, str]:
    """Environment variables that keep AWS's clients away from any real account."""
    return {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_CONFIG_FILE": str(directory / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(directory / "none"),
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }


def found_by_aws(server: S3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in {"AWS_ENDPOINT_URL_S3": server.url, **aws_variables(tmp_path)}.items():
        monkeypatch.setenv(name, value)
