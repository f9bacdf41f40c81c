"""moto's SQS, SNS and EventBridge over HTTP, in a process of their own. To stop it is to have it refuse connections:
it keeps what it holds.
"""

import itertools
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import boto3
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from bench.ports import free_port
from tests.support.moto_server import aws_variables
from tests.support.stack import ROOT

REGION = "eu-central-1"
ACCOUNT = "123456789012"


class Aws:
    """The server, which AWS's own variables lead to while it runs."""

    def __init__(self, directory: Path) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        self._variables = {
            "AWS_ENDPOINT_URL_SQS": self.url,
            "AWS_ENDPOINT_URL_EVENTBRIDGE": self.url,
            "AWS_REGION": REGION,
            **aws_variables(directory),
        }
        self._before = {name: os.environ.get(name) for name in self._variables}
        self._log = (directory / "aws.log").open("ab")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.aws_server", self.url.rpartition(":")[2]],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            bufsize=1,
        )
        self._read()
        os.environ.update(self._variables)

    def start(self) -> None:
        self._command("up")

    def stop(self) -> None:
        self._command("down")

    def client(self, service: str) -> Any:
        """AWS's own client, as other programs use it."""
        return boto3.client(service, region_name=REGION, endpoint_url=self.url)

    def topic(self, name: str) -> None:
        self.queue(name)

    def queue(self, name: str, **attributes: str) -> str:
        """Creates a queue; returns its URL. What is received and not deleted is back after 6 s."""
        return str(
            self.client("sqs").create_queue(
                QueueName=name,
                Attributes={
                    "VisibilityTimeout": "6",
                    **({"FifoQueue": "true"} if name.endswith(".fifo") else {}),
                    **attributes,
                },
            )["QueueUrl"]
        )

    def _command(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._read()

    def _read(self) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline(), "the server has ended: see aws.log"

    def close(self) -> None:
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        self._process.wait(10)
        self._log.close()


class _Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.0"  # A connection per request: none outlives `down`.

    def log(self, type: str, message: str, *args: Any) -> None:
        pass


def _serve(port: int) -> None:
    """The server's process: `down` and `up` on standard input, whose end is its own."""
    app = DomainDispatcherApplication(create_backend_app)
    server: BaseWSGIServer | None = None
    for line in itertools.chain(["up"], map(str.strip, sys.stdin)):
        if line == "up" and server is None:
            server = make_server("127.0.0.1", port, app, threaded=True, request_handler=_Handler)
            server.daemon_threads = True  # type: ignore[attr-defined]
            threading.Thread(target=server.serve_forever, daemon=True).start()
        elif line == "down" and server is not None:
            server.shutdown()
            server.server_close()
            server = None
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
