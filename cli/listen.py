"""`sevenfold listen`: receives, verifies and prints webhooks on this machine."""

import io
import os
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Annotated, Any

import typer

from sevenfold.adapters.webhooks.signatures import SignatureError, generate_secret, join_headers, verify
from sevenfold.cli.delivery_lines import ReceivedDelivery, to_json_line, to_text_line
from sevenfold.cli.verify_webhook import DEFAULT_SECRET_ENV

_HOST = "127.0.0.1"
_MAX_BODY_BYTES = 10_000_000
_READ_SECONDS = 15


def listen(
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="Port on this machine; 0 for any that is free.")
    ] = 9000,
    # No option takes the secret itself, because every user of the machine can read arguments.
    secret_env: Annotated[
        str,
        typer.Option(help="Variable that holds the secrets, separated by commas. If it is empty, one is made."),
    ] = DEFAULT_SECRET_ENV,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per delivery.")] = False,
) -> None:
    """Receives webhooks on this machine, verifies their signatures and prints them, one per line.

    Deliveries go to the standard output; how to point a run here, to the standard error. A delivery whose signature
    is wrong gets 401, so that Sevenfold shows it as failed.
    """
    secrets = [one.strip() for one in os.environ.get(secret_env, "").split(",") if one.strip()]
    generated = None if secrets else generate_secret()
    try:
        server = _Server(port, secrets or [str(generated)], to_json_line if as_json else to_text_line)
    except OSError as error:
        typer.echo(f"Port {port} cannot be used: {error.strerror}. Choose another with --port.", err=True)
        raise typer.Exit(2) from None
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # A terminal may not have the receiver's letters.
    typer.echo(_instructions(server.server_port, secret_env, generated), err=True)
    with server:
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            raise typer.Exit from None


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, port: int, secrets: list[str], to_line: Callable[[ReceivedDelivery], str]) -> None:
        super().__init__((_HOST, port), _Handler)
        self.secrets = secrets
        self._to_line = to_line
        self._printing = threading.Lock()

    def show(self, delivery: ReceivedDelivery) -> None:
        """Prints a delivery. The process ends if nobody reads its output any more, as others in a pipe do."""
        line = self._to_line(delivery)
        try:
            with self._printing:
                sys.stdout.write(f"{line}\n")
                sys.stdout.flush()
        except BrokenPipeError:
            os._exit(0)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A sender that disconnects is not worth a traceback."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _READ_SECONDS

    def do_POST(self) -> None:
        """Verifies, answers and prints one delivery."""
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit() or int(length) > _MAX_BODY_BYTES:
            self._answer(413)
            return
        body, headers = self.rfile.read(int(length)), join_headers(self.headers.items())
        try:
            verify(self.server.secrets, headers, body, now=time.time())
            problem = None
        except SignatureError as error:
            problem = str(error)
        # The answer comes first: whoever reads the output slowly must not look like a slow receiver.
        self._answer(401 if problem else 204)
        self.server.show(ReceivedDelivery(self.path, headers, body, problem))

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()
        self.wfile.flush()

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 (its name)
        """Prints nothing: the output has the deliveries alone."""


def _instructions(port: int, variable: str, generated: str | None) -> str:
    url = f"http://localhost:{port}/"
    body = f'{{"query": "hi", "webhookUrl": "{url}", "webhookSecret": "\'"${variable}"\'"}}'
    lines = [
        f"Listening on {url}. The gateway has to allow this machine "
        "(SEVENFOLD_ALLOW_LOOPBACK_URLS=true sevenfold dev).",
        "Point a run here, in another terminal:",
    ]
    if generated is not None:
        lines.append(f"  export {variable}={generated}")
    return "\n".join(
        [
            *lines,
            "  curl -s http://localhost:8000/api/agent/query -H 'Content-Type: application/json' \\",
            f"    -d '{body}'",
            f"For a stored endpoint, create it with this URL, and start this again with its secret in {variable}.",
        ]
    )
