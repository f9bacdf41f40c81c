"""Checks WebSocket handshakes before uvicorn does, which answers errors in plain text."""

import base64
import binascii
from collections.abc import Iterable

from sevenfold.api.http.problems import ProblemError, ProblemType

_VERSION = b"13"
_KEY_BYTES = 16


def handshake_problem(method: str, headers: Iterable[tuple[bytes, bytes]]) -> ProblemError | None:
    """Returns the problem of a handshake that violates RFC 6455, else None. Header names are in lower case."""
    fields: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        fields.setdefault(name, []).append(value.strip())
    if method != "GET":
        return ProblemError(ProblemType.BAD_REQUEST, "A WebSocket handshake must be a GET request.")
    if fields.get(b"sec-websocket-version") != [_VERSION]:
        return ProblemError(
            ProblemType.UPGRADE_REQUIRED,
            "Only version 13 of WebSocket is supported. Send Sec-WebSocket-Version: 13.",
            headers={"Sec-WebSocket-Version": _VERSION.decode()},
        )
    if fields.get(b"content-length", [b"0"]) != [b"0"] or b"transfer-encoding" in fields:
        return ProblemError(ProblemType.BAD_REQUEST, "A WebSocket handshake has no body.")
    keys = fields.get(b"sec-websocket-key", [])
    if len(keys) != 1 or not _is_key(keys[0]):
        return ProblemError(
            ProblemType.BAD_REQUEST, "Sec-WebSocket-Key must be sent once and hold 16 bytes in base64."
        )
    return None


def _is_key(value: bytes) -> bool:
    try:
        return len(base64.b64decode(value, validate=True)) == _KEY_BYTES
    except binascii.Error:
        return False
