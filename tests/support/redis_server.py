"""A real Redis on a free port."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.ports import free_port

PASSWORD = "a-redis-password"


class RedisServer:
    """`redis-server`, which keeps nothing on disk."""

    def __init__(self, directory: Path, port: int) -> None:
        self._directory = directory
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"redis://:{PASSWORD}@127.0.0.1:{port}/0"

    def start(self) -> None:
        with (self._directory / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *("redis-server", "--bind", "127.0.0.1", "--port", str(self._port), "--requirepass", PASSWORD),
                    *("--save", "", "--appendonly", "no", "--dir", str(self._directory)),
                ],
                stdout=log,
                stderr=log,
            )
        until = time.monotonic() + 30
        while True:
            with socket.socket() as sock:
                if sock.connect_ex(("127.0.0.1", self._port)) == 0:
                    return
            assert time.monotonic() < until, (self._directory / "redis.log").read_text()
            time.sleep(0.02)

    def kill(self) -> None:
        """kill -9; what it held is gone."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(10)
            self._process = None


@contextmanager
def redis_server(directory: Path) -> Iterator[RedisServer]:
    if shutil.which("redis-server") is None and not os.environ.get("CI"):
        pytest.skip("there is no redis-server: apt-get install redis-server")
    server = RedisServer(directory, free_port())
    server.start()
    try:
        yield server
    finally:
        server.kill()
