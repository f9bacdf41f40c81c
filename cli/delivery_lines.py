"""Deliveries as `sevenfold listen` prints them: one line each."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

_ID_FIELDS = ("taskId", "queryId", "jobId", "streamId", "hybridId", "reactionId")
_MAX_DIGITS = 9


@dataclass(frozen=True)
class ReceivedDelivery:
    """What came. `headers` are by lower-case name. `problem`: why the signature is wrong; None if it is valid."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    problem: str | None

    @property
    def parsed(self) -> Any:
        """The body as JSON; as text if it is none."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return self.body.decode(errors="replace")

    @property
    def sequence(self) -> int | None:
        """Its place among the run's deliveries, if it has one."""
        text = self.headers.get("webhook-sequence", "")
        return int(text) if text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS else None


def to_json_line(delivery: ReceivedDelivery) -> str:
    """Returns one JSON object, in ASCII."""
    return json.dumps(
        {
            "receivedAt": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "path": delivery.path,
            "valid": delivery.problem is None,
            "problem": delivery.problem,
            "webhookId": delivery.headers.get("webhook-id"),
            "event": delivery.headers.get("webhook-event"),
            "sequence": delivery.sequence,
            "body": delivery.parsed,
        }
    )


def to_text_line(delivery: ReceivedDelivery) -> str:
    """Returns time, verdict, sequence, event, the run's id and the body."""
    parsed, sequence = delivery.parsed, delivery.sequence
    fields = parsed if isinstance(parsed, dict) else {}
    words = [
        datetime.now().astimezone().strftime("%H:%M:%S"),
        "valid" if delivery.problem is None else f"INVALID ({delivery.problem})",
        f"#{sequence}" if sequence is not None else "",
        delivery.headers.get("webhook-event", ""),
        next((str(fields[name]) for name in _ID_FIELDS if name in fields), delivery.headers.get("webhook-id", "-")),
        json.dumps(parsed, ensure_ascii=False),
    ]
    return " ".join(_printable(word) for word in words if word)


def _printable(text: str) -> str:
    """Escapes what would move the cursor of a terminal: anybody on the machine can post here."""
    return "".join(letter if letter.isprintable() else f"\\u{ord(letter):04x}" for letter in text)
