"""Signs webhooks and verifies them, in two forms that every delivery has.

`webhook-signature` is that of Standard Webhooks: it covers the id and the time too, so a delivery
cannot be replayed later or under another id. `X-Webhook-Signature` is the form that GitHub made common: it covers the
body alone, for receivers that know no other.
"""

import base64
import hashlib
import hmac
import re
import secrets as random_secrets
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from enum import StrEnum

TOLERANCE_SECONDS = 300

_ID, _TIMESTAMP = "webhook-id", "webhook-timestamp"
_PREFIX = "whsec_"
_KEY_BYTES = range(24, 65)
_NEW_KEY_BYTES = 32

# Visible ASCII without the full stop, which separates id, timestamp and body.
_ID_FORM = re.compile(r"[!-\-/-~]{1,255}")
# Characters that every receiver's library reads alike.
_SENT_ID_FORM = re.compile(r"[A-Za-z0-9_-]{1,255}")
_TIMESTAMP_FORM = re.compile(r"[0-9]{1,12}")
_SHA256_BASE64 = re.compile(r"[A-Za-z0-9+/]{43}=")
_SHA256_HEX = re.compile(r"sha256=([0-9A-Fa-f]{64})")


class SignatureForm(StrEnum):
    """The verified header."""

    STANDARD = "webhook-signature"
    BODY_ONLY = "X-Webhook-Signature"


class SignatureError(Exception):
    """The delivery is not authentic. The message states the reason without the secret."""


def generate_secret() -> str:
    """Returns a new secret in the form of Standard Webhooks: `whsec_` and the base64 of 32 random bytes."""
    return f"{_PREFIX}{base64.b64encode(random_secrets.token_bytes(_NEW_KEY_BYTES)).decode()}"


def sign_headers(secrets: Sequence[str], webhook_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """Returns the headers of a delivery sent at `timestamp` (unix seconds).

    `secrets` are the valid ones, newest first. During a rotation each of them signs `webhook-signature`.
    `X-Webhook-Signature` holds one signature, by the oldest secret, because its receivers may not know a newer one.

    Raises ValueError for no secret, an empty one or invalid Unicode, and for an id with characters other than
    letters, digits, underscores and hyphens.
    """
    if not _SENT_ID_FORM.fullmatch(webhook_id):
        raise ValueError("a webhook-id that we send has 1 to 255 letters, digits, underscores and hyphens")
    signed = _signed_content(webhook_id, str(timestamp), body)
    return {
        _ID: webhook_id,
        _TIMESTAMP: str(timestamp),
        SignatureForm.STANDARD.value: " ".join(f"v1,{signature}" for signature in _base64_macs(secrets, signed)),
        SignatureForm.BODY_ONLY.value: f"sha256={_hex_macs(secrets, body)[-1]}",
    }


def verify(
    secrets: Sequence[str],
    headers: Mapping[str, str],
    body: bytes,
    *,
    now: float,
    tolerance: float = TOLERANCE_SECONDS,
) -> SignatureForm:
    """Verifies a delivery that arrived at `now` (unix seconds); any of the secrets may have signed it.

    If any `webhook-` header is present, `webhook-signature` decides; its timestamp may differ by `tolerance` seconds.
    Without them `X-Webhook-Signature` decides, and BODY_ONLY is returned. That form has no replay protection: an
    attacker with a recorded delivery of either form can replay it at any time by omitting the other headers. A
    receiver that needs the protection refuses BODY_ONLY.

    Raises SignatureError for any headers that do not verify; ValueError as `sign_headers` does for the secrets.
    """
    found = join_headers(headers.items())
    if any(name in found for name in (_ID, _TIMESTAMP, SignatureForm.STANDARD)):
        _verify_standard(secrets, found, body, now, tolerance)
        return SignatureForm.STANDARD
    if SignatureForm.BODY_ONLY.lower() not in found:
        raise SignatureError(
            f"missing header: neither {SignatureForm.STANDARD} nor {SignatureForm.BODY_ONLY} is present"
        )
    _verify_body(secrets, found[SignatureForm.BODY_ONLY.lower()], body)
    return SignatureForm.BODY_ONLY


def join_headers(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Returns headers by lower-case name; values of a repeated header are joined, as HTTP specifies.

    A joined value never has a valid form: otherwise one value could be verified and the other one used.
    """
    found: dict[str, str] = {}
    for name, value in headers:
        key = name.lower()
        found[key] = f"{found[key]}, {value}" if key in found else value
    return found


def _verify_standard(
    secrets: Sequence[str], found: Mapping[str, str], body: bytes, now: float, tolerance: float
) -> None:
    for name in (_ID, _TIMESTAMP, SignatureForm.STANDARD):
        if name not in found:
            raise SignatureError(f"missing header: {name}")
    webhook_id, timestamp = found[_ID], found[_TIMESTAMP]
    if not _ID_FORM.fullmatch(webhook_id):
        raise SignatureError(f"malformed: {_ID} must consist of visible ASCII characters without a full stop")
    if not _TIMESTAMP_FORM.fullmatch(timestamp):
        raise SignatureError(f"malformed: {_TIMESTAMP} is not a number of seconds")
    # Signatures of other versions may be present for other receivers.
    versions = (part.partition(",") for part in found[SignatureForm.STANDARD].split(" "))
    signatures = [text for version, _, text in versions if version == "v1" and _SHA256_BASE64.fullmatch(text)]
    if not signatures:
        raise SignatureError(f"malformed: {SignatureForm.STANDARD} has no `v1,` with the base64 of 32 bytes")
    _check_age(now - int(timestamp), tolerance)
    expected = _base64_macs(secrets, _signed_content(webhook_id, timestamp, body))
    if not _one_matches(expected, signatures):
        raise SignatureError(
            f"{SignatureForm.STANDARD} does not match: another secret, or the id, the time or the body was changed"
        )


def _verify_body(secrets: Sequence[str], header: str, body: bytes) -> None:
    form = _SHA256_HEX.fullmatch(header)
    if form is None:
        raise SignatureError(f"malformed: {SignatureForm.BODY_ONLY} is not `sha256=` and 64 hexadecimal digits")
    if not _one_matches(_hex_macs(secrets, body), [form[1].lower()]):
        raise SignatureError(f"{SignatureForm.BODY_ONLY} does not match: another secret, or the body was changed")


def _check_age(age: float, tolerance: float) -> None:
    # Written so that it rejects NaN too.
    if not age <= tolerance:
        raise SignatureError(f"too old: it was signed {age:.0f} s ago, {tolerance:.0f} s are allowed")
    if not age >= -tolerance:
        raise SignatureError(f"in the future: it was signed {-age:.0f} s ahead, {tolerance:.0f} s are allowed")


def _one_matches(expected: Sequence[str], given: Sequence[str]) -> bool:
    return any(hmac.compare_digest(ours, theirs) for ours in expected for theirs in given)


def _signed_content(webhook_id: str, timestamp: str, body: bytes) -> bytes:
    return f"{webhook_id}.{timestamp}.".encode("ascii") + body


def _base64_macs(secrets: Sequence[str], data: bytes) -> list[str]:
    macs = (hmac.digest(_decoded(secret), data, hashlib.sha256) for secret in _checked(secrets))
    return [base64.b64encode(mac).decode("ascii") for mac in macs]


def _hex_macs(secrets: Sequence[str], data: bytes) -> list[str]:
    return [hmac.digest(secret.encode(), data, hashlib.sha256).hex() for secret in _checked(secrets)]


def _checked(secrets: Sequence[str]) -> Sequence[str]:
    # Anybody can sign with an empty key.
    if not secrets or not all(secrets):
        raise ValueError("a webhook needs a secret that is not empty")
    return secrets


def _decoded(secret: str) -> bytes:
    """Returns the key bytes of a Standard Webhooks secret; any other secret, such as `whsec_abc123`, is used as its
    bytes.
    """
    if secret.startswith(_PREFIX):
        # Padding is optional, as in most libraries of receivers.
        text = secret.removeprefix(_PREFIX).rstrip("=")
        with suppress(ValueError):
            key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
            if len(key) in _KEY_BYTES:
                return key
    return secret.encode()
