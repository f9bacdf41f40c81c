"""Amazon SNS as its HTTP endpoints see it: signed messages, the certificate, the confirmation of a subscription."""

import base64
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID

TOPIC = "arn:aws:sns:eu-central-1:123456789012:orders"
CERTIFICATE = "/SimpleNotificationService-0123456789abcdef.pem"

_MEMBERS = {
    "Notification": ["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"],
    "SubscriptionConfirmation": ["Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"],
}


@dataclass
class Sns:
    """SNS at `url`. `requested`: the paths that were fetched of it."""

    url: str
    key: rsa.RSAPrivateKey
    certificate: bytes
    requested: list[str] = field(default_factory=list)

    def notification(self, text: str, **changes: Any) -> dict[str, Any]:
        """A signed notification; `changes` are made before it is signed."""
        return self.sign({"Type": "Notification", "Message": text} | changes)

    def confirmation(self) -> dict[str, Any]:
        return self.sign(
            {
                "Type": "SubscriptionConfirmation",
                "Message": "You have chosen to subscribe",
                "Token": "t0ken",
                "SubscribeURL": f"{self.url}/?Action=ConfirmSubscription&Token=t0ken",
            }
        )

    def sign(self, message: dict[str, Any]) -> dict[str, Any]:
        message = {
            "MessageId": str(uuid.uuid4()),
            "TopicArn": TOPIC,
            "Timestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z"),
            "SignatureVersion": "1",
            "SigningCertURL": f"{self.url}{CERTIFICATE}",
            **message,
        }
        text = "".join(f"{name}\n{message[name]}\n" for name in _MEMBERS[message["Type"]] if name in message)
        digest = hashes.SHA1() if message["SignatureVersion"] == "1" else hashes.SHA256()  # noqa: S303
        signature = self.key.sign(text.encode(), padding.PKCS1v15(), digest)
        return {**message, "Signature": base64.b64encode(signature).decode()}


@contextmanager
def running_sns() -> Iterator[Sns]:
    key = rsa.generate_private_key(65_537, 2_048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sns.amazonaws.com")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .sign(key, hashes.SHA256())
    )
    sns = Sns("", key, certificate.public_bytes(serialization.Encoding.PEM))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            sns.requested.append(self.path)
            is_known = self.path == CERTIFICATE or "Action=ConfirmSubscription" in self.path
            body = sns.certificate if self.path == CERTIFICATE else b"<ConfirmSubscriptionResponse/>"
            self.send_response(200 if is_known else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    sns.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield sns
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
