"""Documents: the forms in which a client may send one, and the text that an agent gets."""

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
    """What was read of a document. `text` is never blank, and free of control characters but newlines and tabs.

    `pages` counts all pages, where there are any; `unread_pages` those that are damaged. `truncated`: the document
    is longer than what is read of one.
    """

    text: str
    content_type: str
    title: str | None = None
    pages: int | None = None
    unread_pages: int = 0
    truncated: bool = False


class DocumentByUrl(RequestBody):
    """A document to be fetched."""

    url: str = Field(max_length=_MAX_URL, description="Where the document is: an http or https address.")

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        url = url.strip()
        if _ADDRESS.fullmatch(url) is None or not _host(url):
            raise ValueError("must be an address that begins with http:// or https://, with nothing around it")
        return url


class DocumentByText(RequestBody):
    """A document that is sent as it reads."""

    text: str = Field(description="The text itself.")
    title: Title | None = None

    @field_validator("text")
    @classmethod
    def _check_not_blank(cls, text: str) -> str:
        if not text.strip():
            raise ValueError("is blank: send the document's text, or its address")
        return text


class DocumentByBytes(RequestBody):
    """A document that is sent as a file's bytes."""

    base64: str = Field(
        description="The file in base64; whitespace does not matter. A request holds 10 MB, so 7 MB of file: give a "
        "larger one by its address."
    )
    content_type: str | None = Field(
        default=None, max_length=200, description="Its media type; told from the bytes if absent."
    )
    name: str | None = Field(default=None, max_length=300, description="Its file name.")
    title: Title | None = None

    @field_validator("base64")
    @classmethod
    def _check_base64(cls, text: str) -> str:
        text = "".join(text.split())
        if len(text) // 4 * 3 - text[-2:].count("=") > MAX_DOCUMENT_BYTES:
            raise ValueError(f"holds more than {MAX_DOCUMENT_BYTES // 1_000_000} MB: send the document's address")
        if not _decode_base64(text):
            raise ValueError("is empty: send the file's bytes")
        return text


class DocumentBytes(NamedTuple):
    """A document's bytes and what its sender says of them, for whoever extracts the text."""

    data: bytes
    content_type: str | None
    name: str | None
    title: str | None


def decode_inline(document: DocumentByText | DocumentByBytes) -> DocumentBytes:
    """The bytes of a document that came with the request."""
    if isinstance(document, DocumentByText):
        # No type: a text may well be the source of an HTML page.
        return DocumentBytes(document.text.encode(errors="replace"), None, None, document.title)
    return DocumentBytes(_decode_base64(document.base64), document.content_type, document.name, document.title)


def _decode_base64(text: str) -> bytes:
    try:
        return binascii.a2b_base64(text.encode("ascii"), strict_mode=True)
    except UnicodeEncodeError:
        raise ValueError("is not base64: it holds characters that are not part of it") from None
    except binascii.Error as error:
        raise ValueError(f"is not base64: {str(error).lower()}") from None


def _host(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:  # an IPv6 address without its end
        return None


_FORM_MODELS: dict[str, type[RequestBody]] = {"url": DocumentByUrl, "text": DocumentByText, "base64": DocumentByBytes}


def _parse_document(value: Any) -> Any:
    """The value as the one form that it means, so that mistakes are told of that form and not of all three."""
    if isinstance(value, str):
        return _from_string(value)
    if isinstance(value, RequestBody):  # made in Python
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
