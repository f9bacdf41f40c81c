"""CloudEvents 1.0 (https://github.com/cloudevents/spec), parsed strictly: an event without an id is refused."""

import base64
import binascii
import hashlib
import json
import re
from datetime import datetime
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, ValidationError, model_validator

from sevenfold.contracts.json.strict import JsonLimitError, check_value, parse_json

# Size limit of an event as JSON, in bytes. The specification requires 64 kB to be accepted everywhere.
MAX_EVENT_BYTES = 1_000_000

# Size limit of its attributes: lists and memos hold them.
MAX_ATTRIBUTE_BYTES = 16_000

_DATA_FIELDS = ("data", "data_base64")
_CORE_ATTRIBUTES = frozenset(
    ("specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema", "data", "data_base64")
)
_EXTENSION_NAME = re.compile(r"[a-z0-9]{1,40}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_INTEGER_LIMIT = 2**31
_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(\.\d{1,12})?([zZ]|[+-]\d\d:\d\d)", re.ASCII)
_JSON_TYPE = re.compile(r"[^/;\s]+/(?:[^/;\s]+\+)?json\s*(?:;.*)?", re.IGNORECASE)


def _check_text(text: object) -> object:
    if isinstance(text, str) and _CONTROL.search(text):
        raise ValueError("must not contain control characters")
    return text


def _check_timestamp(text: object) -> object:
    """Checks RFC 3339 and keeps the text, because a `datetime` has no nanoseconds."""
    if isinstance(text, datetime):
        text = text.isoformat()
    found = _RFC3339.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise ValueError("must be a string with a time such as 2026-11-22T10:00:00Z")
    try:
        _to_datetime(found)
    except ValueError as error:
        raise ValueError(f"must be a time such as 2026-11-22T10:00:00Z: {error}") from None
    return text


def _to_datetime(found: re.Match[str]) -> datetime:
    return datetime.fromisoformat(f"{found[1]}T{found[2]}{'+00:00' if found[4] in 'zZ' else found[4]}")


def _check_uri_reference(text: object) -> object:
    if isinstance(text, str):
        if not text.strip() or re.search(r"\s", text):
            raise ValueError("must be a URI or a URI reference, without white space")
        try:
            urlsplit(text)
        except ValueError as error:
            raise ValueError(f"is not a URI: {error}") from None
    return text


_String = Annotated[str, BeforeValidator(_check_text)]
_Token = Annotated[_String, Field(min_length=1, max_length=256)]
_Uri = Annotated[_String, BeforeValidator(_check_uri_reference), Field(min_length=1, max_length=1_024)]


class CloudEvent(BaseModel):
    """One event. Extension attributes are top-level fields, as in the JSON format.

    `data` holds JSON or text, `data_base64` anything else; never both.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    specversion: Annotated[str, Field(pattern=r"^1\.0$")]
    id: _Token
    source: _Uri
    type: _Token
    subject: Annotated[_String, Field(min_length=1, max_length=1_024)] | None = None
    time: (
        Annotated[str, BeforeValidator(_check_timestamp), Field(json_schema_extra={"format": "date-time"})] | None
    ) = None
    datacontenttype: Annotated[_String, Field(min_length=1, max_length=256)] | None = None
    dataschema: _Uri | None = None
    data: JsonValue = None
    data_base64: str | None = None

    @model_validator(mode="after")
    def _check_consistency(self) -> "CloudEvent":
        if self.data_base64 is not None:
            if self.data is not None:
                raise ValueError("data and data_base64 exclude each other")
            try:
                base64.b64decode(self.data_base64, validate=True)
            except (binascii.Error, ValueError):
                raise ValueError("data_base64 is not base64") from None
        for name, value in self.extensions.items():
            _check_extension(name, value)
        return self

    @property
    def extensions(self) -> dict[str, Any]:
        """The attributes beyond the specification's core attributes."""
        return self.model_extra or {}

    def attribute(self, name: str) -> str | None:
        """Returns a context attribute in its string form; None if it is absent."""
        if name in ("data", "data_base64"):
            return None
        value = self.extensions.get(name) if name not in _CORE_ATTRIBUTES else getattr(self, name)
        if value is None:
            return None
        return str(value).lower() if isinstance(value, bool) else str(value)

    def to_json(self) -> dict[str, Any]:
        """Returns the JSON format, without absent attributes."""
        fields = self.model_dump(mode="json", exclude_none=True)
        # `"data": null` is equivalent to no data.
        return {name: value for name, value in fields.items() if value is not None}

    def content_hash(self) -> str:
        """Hash of the event's content, independent of the transport. Equal hashes under one id are duplicates,
        different hashes a conflict.

        Transports convert numbers in extension attributes to text and may add attributes, so extensions are left out.
        1 and 1.0 are the same JSON number, so both hash alike.
        """
        content = [self.type, self.subject, _normalize_numbers(self.data), self.data_base64]
        return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def _normalize_numbers(value: JsonValue) -> JsonValue:
    """Converts whole-valued floats to integers, recursively."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, list):
        return [_normalize_numbers(one) for one in value]
    if isinstance(value, dict):
        return {name: _normalize_numbers(one) for name, one in value.items()}
    return value


def _check_extension(name: str, value: object) -> None:
    if not _EXTENSION_NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not an attribute name: use lower-case letters and digits")
    match value:
        case bool() | None:
            return
        case int() if -_INTEGER_LIMIT <= value < _INTEGER_LIMIT:
            return
        case str() if len(value) <= 4_096 and not _CONTROL.search(value):
            return
    raise ValueError(f"{name} must be a string, a boolean or an integer of 32 bits")


class InvalidEventError(Exception):
    """The message is not a CloudEvent; `errors` holds (attribute, detail) pairs."""

    def __init__(self, errors: list[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{name}: {detail}" if name else detail for name, detail in errors))
        self.errors = errors


def find_time(event: CloudEvent) -> datetime | None:
    """Returns when the event occurred, to the second; None if it does not state that."""
    found = _RFC3339.fullmatch(event.time) if event.time else None
    return _to_datetime(found) if found else None


def event_from_json(raw: object) -> CloudEvent:
    """Parses the JSON format. Raises InvalidEventError."""
    if not isinstance(raw, dict):
        raise InvalidEventError([("", "an event must be a JSON object")])
    try:
        check_value(raw)
        event = CloudEvent.model_validate(raw)
    except JsonLimitError as error:
        raise InvalidEventError([("", str(error))]) from None
    except ValidationError as error:
        errors = [(".".join(map(str, e["loc"])), _clean_message(e["msg"])) for e in error.errors(include_input=False)]
        raise InvalidEventError(errors) from None
    try:
        size = _json_size(raw)
    except UnicodeEncodeError:
        raise InvalidEventError([("", "it has text that is not valid Unicode")]) from None
    if _json_size({name: value for name, value in raw.items() if name not in _DATA_FIELDS}) > MAX_ATTRIBUTE_BYTES:
        detail = f"its attributes exceed {MAX_ATTRIBUTE_BYTES:,} bytes of JSON; send the rest as data"
        raise InvalidEventError([("", detail)])
    if size > MAX_EVENT_BYTES:
        raise InvalidEventError([("", f"it has {size:,} bytes of JSON; the limit is {MAX_EVENT_BYTES:,} bytes")])
    return event


def _json_size(value: dict[str, Any]) -> int:
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str).encode())


def _clean_message(message: str) -> str:
    return message.removeprefix("Value error, ")


def event_from_binary(attributes: dict[str, str], content_type: str | None, body: bytes) -> CloudEvent:
    """Parses the binary mode: `attributes` without their prefix, the message's content type, and its body as data.

    Raises InvalidEventError.
    """
    if wrong := [name for name in attributes if name in _DATA_FIELDS]:
        raise InvalidEventError([(name, "is not an attribute: send the data as the body") for name in wrong])
    fields: dict[str, Any] = {**attributes}
    media_type, charset = _split_content_type(content_type)
    if content_type:
        # The data is stored as characters, so the character set no longer applies.
        fields["datacontenttype"] = media_type if charset else content_type
    if body:
        fields.update(_decode_data(media_type, charset, body))
    return event_from_json(fields)


def _split_content_type(content_type: str | None) -> tuple[str, str | None]:
    """Returns the media type with its other parameters, and the charset if there is one."""
    parts = [part.strip() for part in (content_type or "").split(";")]
    charsets = [part.partition("=")[2].strip().strip('"') for part in parts if part.lower().startswith("charset=")]
    kept = [part for part in parts if not part.lower().startswith("charset=")]
    return "; ".join(kept), charsets[0] if charsets else None


def _decode_data(media_type: str, charset: str | None, body: bytes) -> dict[str, Any]:
    is_json = _JSON_TYPE.fullmatch(media_type) is not None
    try:
        if is_json:
            return {"data": parse_json(body if charset is None else body.decode(charset))}
        if media_type.lower().startswith("text/"):
            return {"data": body.decode(charset or "utf-8")}
    except LookupError:
        raise InvalidEventError([("datacontenttype", f"names the unknown character set {charset!r}")]) from None
    except ValueError as error:
        raise InvalidEventError([("data", f"does not match its content type: {error}")]) from None
    return {"data_base64": base64.b64encode(body).decode()}


def to_binary_mode(event: CloudEvent) -> tuple[dict[str, str], str | None, bytes]:
    """Returns the binary mode: attributes without a prefix, content type, and body."""
    names = [name for name in (*_CORE_ATTRIBUTES, *event.extensions) if name != "datacontenttype"]
    attributes = {name: value for name in sorted(names) if (value := event.attribute(name)) is not None}
    if event.data_base64 is not None:
        return attributes, event.datacontenttype, base64.b64decode(event.data_base64)
    if event.data is None:
        return attributes, event.datacontenttype, b""
    content_type = event.datacontenttype or "application/json"
    if isinstance(event.data, str) and not _JSON_TYPE.fullmatch(content_type):
        return attributes, content_type, event.data.encode()
    return attributes, content_type, json.dumps(event.data, ensure_ascii=False, separators=(",", ":")).encode()
