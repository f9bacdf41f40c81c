"""Documents: the forms in which a client may send one, and the extracted text that an agent gets."""

import binascii
import re
from typing import Annotated, Any, NamedTuple
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, field_validator

from sevenfold.contracts.payload import Payload, RequestBody

MAX_DOCUMENT_BYTES = 20_000_000

_MAX_URL = 8_192
_ADDRESS = re.compile(r"https?://\S+", re.IGNORECASE)
_DATA_URL = re.compile(r"data:([^,;]*(?:;[^,;=]+=[^,;]*)*);base64,", re.IGNORECASE)
_FORMS = "a string (an address or the text itself), or an object with one of url, text and base64"

Title = Annotated[str, Field(max_length=300)]


class DocumentText(Payload):
    """The text extracted from a document. `text` is never blank and has no control characters except newlines and
    tabs.

    `pages` counts all pages (None: no pages), `unread_pages` the damaged ones. `truncated`: the document is longer
    than the extraction limit.
    """

    text: str
    content_type: str
    title: str | None = None
    pages: int | None = None
    unread_pages: int = 0
    truncated: bool = False


class DocumentByUrl(RequestBody):
    """A document to fetch."""

    url: str = Field(max_length=_MAX_URL, description="The document's http or https URL.")

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        url = url.strip()
        if _ADDRESS.fullmatch(url) is None or not _host(url):
            raise ValueError("must be one URL that starts with http:// or https://")
        return url


class DocumentByText(RequestBody):
    """A document sent as text."""

    text: str = Field(description="The document's text.")
    title: Title | None = None

    @field_validator("text")
    @classmethod
    def _check_not_blank(cls, text: str) -> str:
        if not text.strip():
            raise ValueError("is blank: send the document's text or its URL")
        return text


class DocumentByBytes(RequestBody):
    """A document sent as a file's bytes."""

    base64: str = Field(
        description="The file in base64; whitespace is ignored. A request is limited to 10 MB, so the file to 7 MB: "
        "send a larger one by its URL."
    )
    content_type: str | None = Field(
        default=None, max_length=200, description="Its media type; detected from the bytes if absent."
    )
    name: str | None = Field(default=None, max_length=300, description="Its file name.")
    title: Title | None = None

    @field_validator("base64")
    @classmethod
    def _check_base64(cls, text: str) -> str:
        text = "".join(text.split())
        if len(text) // 4 * 3 - text[-2:].count("=") > MAX_DOCUMENT_BYTES:
            raise ValueError(f"is larger than {MAX_DOCUMENT_BYTES // 1_000_000} MB: send the document's URL")
        if not _decode_base64(text):
            raise ValueError("is empty: send the file's bytes")
        return text


class DocumentBytes(NamedTuple):
    """A document's bytes with the sender's content type, file name and title."""

    data: bytes
    content_type: str | None
    name: str | None
    title: str | None


def decode_inline(document: DocumentByText | DocumentByBytes) -> DocumentBytes:
    """Returns the bytes of a document that came with the request."""
    if isinstance(document, DocumentByText):
        # No content type: the text may be the source of an HTML page.
        return DocumentBytes(document.text.encode(errors="replace"), None, None, document.title)
    return DocumentBytes(_decode_base64(document.base64), document.content_type, document.name, document.title)


def _decode_base64(text: str) -> bytes:
    try:
        return binascii.a2b_base64(text.encode("ascii"), strict_mode=True)
    except UnicodeEncodeError:
        raise ValueError("is not base64: it contains invalid characters") from None
    except binascii.Error as error:
        raise ValueError(f"is not base64: {str(error).lower()}") from None


def _host(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:  # An IPv6 address without its closing bracket.
        return None


_FORM_MODELS: dict[str, type[RequestBody]] = {"url": DocumentByUrl, "text": DocumentByText, "base64": DocumentByBytes}


def _parse_document(value: Any) -> Any:
    """Parses the value as the one form that its keys select, so that errors describe that form and not all three."""
    if isinstance(value, str):
        return _from_string(value)
    if isinstance(value, RequestBody):  # Constructed in Python.
        return value
    named = [key for key in _FORM_MODELS if isinstance(value, dict) and key in value]
    if len(named) != 1:
        found = f"this has {' and '.join(named)}" if named else "this is neither"
        raise ValueError(f"must be {_FORMS}; {found}")
    return _FORM_MODELS[named[0]].model_validate(value)


def _from_string(value: str) -> DocumentByUrl | DocumentByText | DocumentByBytes:
    if _ADDRESS.fullmatch(value.strip()) is not None:
        return DocumentByUrl(url=value)
    data_url = _DATA_URL.match(value)
    if data_url is not None:
        return DocumentByBytes(base64=value[data_url.end() :], content_type=data_url[1] or None)
    return DocumentByText(text=value)


Document = Annotated[
    DocumentByUrl | DocumentByText | DocumentByBytes,
    BeforeValidator(_parse_document, json_schema_input_type=str | DocumentByUrl | DocumentByText | DocumentByBytes),
    Field(description=f"The document: {_FORMS}."),
]
