"""Receives Sevenfold's webhooks. It needs nothing but Python's standard library; copy it and change it.

WEBHOOK_SECRET=whsec_… PORT=9000 python examples/webhooks/receiver.py
"""

import base64
import binascii
import hashlib
import hmac
import os
import re
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOLERANCE_SECONDS = 300
MAX_BODY = 10_000_000
REMEMBERED = 100_000


class RefusedError(Exception):
    """A delivery that is not genuine, with the reason."""


def verify(secret: str, headers: Mapping[str, str], body: bytes, now: float, *, body_only: bool = False) -> str:
    """Checks a delivery that arrived at `now` (unix seconds), and returns what is the same whenever it comes again.

    `headers` are by lower-case name. With `body_only`, a delivery without any of the `webhook-` headers is accepted
    by its `X-Webhook-Signature`. That is for senders who know no other: it lets everybody who ever saw a delivery
    send it again. Raises RefusedError.
    """
    names = ("webhook-id", "webhook-timestamp", "webhook-signature")
    if body_only and not any(name in headers for name in names):
        return _verify_body(secret, headers.get("x-webhook-signature", ""), body)
    webhook_id, timestamp, signatures = (headers.get(name, "") for name in names)
    # A full stop in the id could move the borders between id, time and body.
    if not re.fullmatch(r"[!-\-/-~]+", webhook_id) or not re.fullmatch(r"[0-9]{1,12}", timestamp):
        raise RefusedError("webhook-id or webhook-timestamp is missing or malformed")
    if abs(now - int(timestamp)) > TOLERANCE_SECONDS:
        raise RefusedError("webhook-timestamp is too old or in the future")
    mac = hmac.digest(_key(secret), f"{webhook_id}.{timestamp}.".encode() + body, hashlib.sha256)
    expected = f"v1,{base64.b64encode(mac).decode()}"
    # While the sender's secret changes, there are two; one that matches is enough.
    if not any(_equal(expected, signature) for signature in signatures.split(" ")):
        raise RefusedError("webhook-signature is missing or does not match")
    return webhook_id


def _verify_body(secret: str, signature: str, body: bytes) -> str:
    expected = f"sha256={hmac.digest(secret.encode(), body, hashlib.sha256).hex()}"
    if not _equal(expected, signature):
        raise RefusedError("X-Webhook-Signature is missing or does not match")
    # No id is signed; the same body counts as the same delivery.
    return signature


def _equal(expected: str, given: str) -> bool:
    # in constant time, and of bytes: of text it takes ASCII only
    return hmac.compare_digest(expected.encode(), given.encode())


def _key(secret: str) -> bytes:
    """What follows `whsec_` is base64 of 24 to 64 bytes; any other secret is used as it is."""
    if secret.startswith("whsec_"):
        text = secret.removeprefix("whsec_").rstrip("=")
        try:
            key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
        except (binascii.Error, ValueError):
            return secret.encode()
        if 24 <= len(key) <= 64:
            return key
    return secret.encode()


class Inbox:
    """Handles each delivery once, however often it comes.

    Yours keeps what it has handled in its database, in the transaction that does the work: memory ends with the
    process, and a delivery can come again for days.
    """

    def __init__(self) -> None:
        self._handled: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, delivery: str, body: bytes) -> None:
        """Handles it unless it has been. Remembered only afterwards: one that failed shall come again."""
        with self._lock:
            if delivery in self._handled:
                _print(f"again {delivery}")
                return
            _print(f"received {delivery} {body.decode(errors='replace')}")  # your work, or its way into your queue
            self._handled[delivery] = None
            if len(self._handled) > REMEMBERED:
                self._handled.popitem(last=False)


class Receiver(BaseHTTPRequestHandler):
    """204 for what is handled; else a status after which Sevenfold tries again, and the reason for its log."""

    secret: str
    body_only: bool
    inbox: Inbox
    # Seconds of silence after which a connection is given up.
    timeout = 10

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch(r"[0-9]{1,9}", length):
            return self._answer(411, "a Content-Length is needed")
        if int(length) > MAX_BODY:
            return self._answer(413, f"more than {MAX_BODY} bytes")
        # Verify the bytes as they came: JSON that was read and written again has other ones.
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            return None  # the sender has gone
        try:
            delivery = verify(self.secret, self._by_name(), body, time.time(), body_only=self.body_only)
        except RefusedError as error:
            return self._answer(401, str(error))
        self.inbox.take(delivery, body)
        return self._answer(204)

    def _by_name(self) -> dict[str, str]:
        # One that stands twice is joined, as HTTP has it, and then fits nothing.
        return {name.lower(): ", ".join(self.headers.get_all(name, [])) for name in self.headers}

    def _answer(self, status: int, reason: str = "") -> None:
        self.send_response(status)
        if reason:
            self.send_header("Content-Type", "text/plain")
            self.send_header("Content-Length", str(len(reason)))
        self.end_headers()
        self.wfile.write(reason.encode())


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """Listens on loopback; put what speaks TLS before it."""
    secret = os.environ.get("WEBHOOK_SECRET")
    if not secret:
        sys.exit("WEBHOOK_SECRET must hold the secret.")
    Receiver.secret = secret
    Receiver.body_only = os.environ.get("ACCEPT_BODY_ONLY") == "1"
    Receiver.inbox = Inbox()
    with ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "9000"))), Receiver) as server:
        _print(f"listening on port {server.server_port}")
        server.serve_forever()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
