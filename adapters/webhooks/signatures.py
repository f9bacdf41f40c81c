"""Signs webhooks and verifies them, in two forms that every delivery has.

`webhook-signature` is that of Standard Webhooks: it covers the id and the time too, so that nobody can send a
delivery again later or under another id. `X-Webhook-Signature` is the form that GitHub made common: it covers the
body alone, for receivers that know no other.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from enum import StrEnum

TOLERANCE_SECONDS = 300

_ID, _TIMESTAMP = "webhook-id", "webhook-timestamp"
_PREFIX = "whsec_"
_KEY_BYTES = range(24, 65)

# Visible ASCII without the full stop: with one, an id's end could pass for a time and the time for a body's start.
_ID_FORM = re.compile(r"[!-\-/-~]{1,255}")
# What we send ourselves holds nothing that any receiver's library could read otherwise.
_SENT_ID_FORM = re.compile(r"[A-Za-z0-9_-]{1,255}")
_TIMESTAMP_FORM = re.compile(r"[0-9]{1,12}")
_SHA256_BASE64 = re.compile(r"[A-Za-z0-9+/]{43}=")
_SHA256_HEX = re.compile(r"sha256=([0-9A-Fa-f]{64})")


class SignatureForm(StrEnum):
    """What was verified, by the name of its header."""

    STANDARD = "webhook-signature"
    BODY_ONLY = "X-Webhook-Signature"


class SignatureError(Exception):
    """A delivery that is not to be trusted. The message says why, without a word of the secret."""


def sign_headers(secrets: Sequence[str], webhook_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers of a delivery that is sent at `timestamp` (unix seconds).

    `secrets` are those in force, newest first: several while one takes over from another, and each then signs
    `webhook-signature`. `X-Webhook-Signature` has room for one, the oldest: its receivers know no newer yet.

    Raises ValueError: no secret, an empty one or one that is no Unicode; an id of other characters than
    letters, digits, underscores and hyphens.
    """
    if not _SENT_ID_FORM.fullmatch(webhook_id):
        raise ValueError("a webhook-id that we send is of 1 to 255 letters, digits, underscores and hyphens")
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
    """Checks a delivery as it arrived at `now` (unix seconds); any of the secrets may have signed it.

    It goes by `webhook-signature` if there is any of the `webhook-` headers; its time may be `tolerance` seconds off,
    either way. Only without them does it go by `X-Webhook-Signature`, and BODY_ONLY is returned: whoever once saw
    such a delivery, or one of the other form whose headers he leaves out, can send it again at any time. A receiver
    that wants none of that refuses BODY_ONLY.

    Raises SignatureError whatever is in the headers; ValueError as `sign_headers` does for the secrets.
    """
    found = join_headers(headers.items())
    if any(name in found for name in (_ID, _TIMESTAMP, SignatureForm.STANDARD)):
        _verify_standard(secrets, found, body, now, tolerance)
        return SignatureForm.STANDARD
    if SignatureForm.BODY_ONLY.lower() not in found:
        raise SignatureError(
            f"missing header: there is neither {SignatureForm.STANDARD} nor {SignatureForm.BODY_ONLY}"
        )
    _verify_body(secrets, found[SignatureForm.BODY_ONLY.lower()], body)
    return SignatureForm.BODY_ONLY


def join_headers(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Headers by their names in lower case. The values of one that stands twice are joined, as HTTP has it.

    No such value has the form of ours: otherwise one could be verified, and the other be believed.
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
        raise SignatureError(f"malformed: {_ID} is not of visible ASCII characters without a full stop")
    if not _TIMESTAMP_FORM.fullmatch(timestamp):
        raise SignatureError(f"malformed: {_TIMESTAMP} is not a number of seconds")
    # Other versions may stand beside ours: they are for receivers that know them.
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
    # Written so that a NaN is refused too.
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
    # anybody can sign with an empty key
    if not secrets or not all(secrets):
        raise ValueError("a webhook needs a secret, and none may be empty")
    return secrets


def _decoded(secret: str) -> bytes:
    """The key of a Standard Webhooks secret; of any other, such as `whsec_abc123`, the bytes of all its text."""
    if secret.startswith(_PREFIX):
        # Padding may be missing: most libraries take it so, and receivers use those.
        text = secret.removeprefix(_PREFIX).rstrip("=")
        with suppress(ValueError):
            key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
            if len(key) in _KEY_BYTES:
                return key
    return secret.encode()
