"""Documents: the forms they come in, and what is read of them."""

import json
from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from sevenfold.adapters.agents.builtin.agent import BuiltinAgent
from sevenfold.adapters.documents.limits import DocumentLimits
from sevenfold.contracts.agents.document_errors import DocumentFault
from sevenfold.contracts.agents.documents import (
    Document,
    DocumentByBytes,
    DocumentByText,
    DocumentByUrl,
    decode_inline,
)
from sevenfold.contracts.agents.interface import AgentContext, AgentRequest
from sevenfold.contracts.payload import RequestBody
from tests.support.documents import drawing, fault, pdf, read, sealed


async def test_a_pdf_yields_its_text_title_and_number_of_pages():
    found = await read(pdf(drawing("First line.", "Second line."), drawing("Another page.")))
    assert found.text == "First line.\nSecond line.\n\nAnother page."
    assert (found.content_type, found.pages, found.title) == ("application/pdf", 2, None)
    # Sealed against changes only: everybody may read it.
    for algorithm in ("RC4-128", "AES-128", "AES-256"):
        open_to_all = await read(sealed("", "owner", title="Q3 \n report", algorithm=algorithm))
        assert (open_to_all.title, open_to_all.text) == ("Q3 report", "Nobody shall see this.")
    assert (await read(sealed("", "owner"), title="Given")).title == "Given"


async def test_damaged_page_does_not_lose_the_others():
    nonsense = b"<<" * 1_000 + drawing("Lost.")
    found = await read(pdf(drawing("Good."), nonsense, drawing("Fine.")))
    assert (found.text, found.pages, found.unread_pages) == ("Good.\n\nFine.", 3, 1)
    assert await fault(pdf(nonsense)) is DocumentFault.BROKEN


PAGE = """<!-- a page --><!DOCTYPE html><html><head><title>Ideas &amp; deeds</title><style>p {color: red}</style>
<script>if (a < b) document.write("<p>no</p>")</script></head><body><h1>On  ideas</h1>
<p>They are <b>free</b>; deeds<br>are not.<template><p>no</p></template><svg><title>no</title><svg/></svg>
<ul><li><p>caf\u00e9<li>tea</ul><pre>a
b</pre><table><tr><td>1<td>2<tr><td>3</table><p hidden>"""


@pytest.mark.parametrize("declared", ["text/html", None, "application/octet-stream", "TEXT/HTML; charset=utf-8"])
async def test_html_yields_its_title_and_visible_text(declared):
    found = await read(PAGE.encode(), declared)
    assert found.text == "On ideas\n\nThey are free; deeds\nare not.\n\n- café\n- tea\n\na\nb\n\n1 2\n3"
    assert (found.title, found.content_type, found.pages) == ("Ideas & deeds", "text/html", None)


@pytest.mark.parametrize(
    ("data", "content_type"),
    [
        ("naïve “€”".encode(), None),
        ("naïve “€”".encode("utf-8-sig"), "text/plain; charset=latin-1"),
        ("naïve “€”".encode("cp1252"), None),
        ("naïve “€”".encode("cp1252"), "text/plain; charset=ISO-8859-1"),
        ("naïve “€”".encode("cp1252"), "text/plain; charset=utf-8"),
        ("naïve “€”".encode("utf-16"), None),
        ("naïve “€”".encode("utf-32"), "text/plain"),
        ("naïve “€”".encode("utf-16-be"), 'text/markdown; charset="utf-16be"'),
        ("naïve “€”".encode("gb18030"), "text/plain;charset=GB18030"),
        # No character sets, but Python has codecs of these names.
        ("naïve “€”".encode(), "text/plain; charset=idna"),
        ("naïve “€”".encode(), "text/plain; charset=zip"),
        (b"<html><meta charset='windows-1252'>" + "naïve “€”".encode("cp1252"), "text/html"),
        (b'<html><meta http-equiv=a content="text/html; charset=utf-16">' + "naïve “€”".encode(), None),
        (b'<?xml version="1.0" encoding="cp1252"?><html>' + "naïve “€”".encode("cp1252"), None),
    ],
)
async def test_character_set_is_detected(data, content_type):
    assert (await read(data, content_type)).text == "naïve “€”"


async def test_text_is_normalised_and_truncated():
    found = await read(b"\xef\xbb\xbf\r\n  a\x07 \r\n\r\n\r\n\r\nb\xe2\x80\xae\tc\x00", "text/markdown")
    assert (found.text, found.content_type, found.truncated) == ("a\n\nb\tc", "text/markdown", False)
    small = DocumentLimits(characters=10)
    for data in (b"0123456789abc", b"<html>" + b"<p>0123456789abc" * 9, pdf(drawing("0123456789abc"), b"")):
        found = await read(data, limits=small)
        assert (found.text, found.truncated) == ("0123456789", True)
    long = await read(b"A line of a long text.\n" * 200_000)
    assert (len(long.text), long.truncated) == (2_000_000, True)


@pytest.mark.parametrize(
    ("expected", "data", "detail"),
    [
        ("encrypted", lambda: sealed("secret"), {}),
        ("encrypted", lambda: sealed("secret", algorithm="RC4-128"), {}),
        ("broken", lambda: pdf(drawing("Half of it."))[:300], {}),
        ("broken", lambda: b"%PDF-1.7\n", {}),
        ("broken", lambda: b"<html>Please sign in", {"content_type": "application/pdf"}),
        ("empty", lambda: b"", {}),
        ("empty", lambda: b" \n\x0c", {}),
        ("empty", lambda: pdf(b""), {}),
        ("empty", lambda: b"<html><script>render()</script>", {}),
        ("too_large", lambda: b"a" * 20_000_001, {}),
        ("too_large", lambda: pdf(*[b""] * 2_001), {}),
        ("unsupported_type", lambda: b"PK\x03\x04...", {"name": "letter.docx"}),
        ("unsupported_type", lambda: b"moving", {"content_type": "video/mp4"}),
        ("unsupported_type", lambda: b"\0" * 1_000_000, {}),
        ("unsupported_type", lambda: bytes(range(1, 256)) * 50, {"content_type": "text/plain"}),
    ],
)
async def test_unreadable_document_has_a_clear_error(expected, data, detail):
    assert await fault(data(), **detail) == expected


async def test_agent_receives_the_extracted_text():
    pages = [drawing("Work queues", "A queue keeps jobs safe."), drawing("A worker takes a job from the queue.")]
    found = await read(pdf(*pages), limits=DocumentLimits(characters=60))
    document = found.model_dump(mode="json", by_alias=True)
    request = AgentRequest(run_id="r", task="analyze_document", data={"document": document})
    context = AgentContext(deadline=datetime(2100, 1, 1, tzinfo=UTC))
    reply = [event async for event in BuiltinAgent().run(request, context)][-1]
    fields = {key: reply.data[key] for key in ("title", "pages", "contentType", "truncated", "words", "sentences")}
    assert fields == {
        "title": "Work queues",
        "pages": 2,
        "contentType": "application/pdf",
        "truncated": True,
        "words": 11,
        "sentences": 2,
    }
    assert reply.response.startswith("“Work queues”: 2 pages, 11 words in 2 sentences. Not all of it was read.")
    assert {"summary", "keyTerms", "sentiment", "readingMinutes"} <= reply.data.keys()


class Body(RequestBody):
    document: Document


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (" https://client.com/doc.pdf\n", DocumentByUrl(url="https://client.com/doc.pdf")),
        ({"url": "HTTP://a.b/c?d=e"}, DocumentByUrl(url="HTTP://a.b/c?d=e")),
        ("See https://client.com/doc.pdf", DocumentByText(text="See https://client.com/doc.pdf")),
        ({"text": "A text.", "title": "T"}, DocumentByText(text="A text.", title="T")),
        ("data:the figures of May", DocumentByText(text="data:the figures of May")),
        ("data:text/html;charset=x;base64,aGk=", DocumentByBytes(base64="aGk=", content_type="text/html;charset=x")),
        ({"base64": "a G\nk=", "name": "a.txt"}, DocumentByBytes(base64="aGk=", name="a.txt")),
    ],
)
def test_document_reference_forms(value, expected):
    body = Body.model_validate_json(json.dumps({"document": value}))
    assert body.document == expected
    assert Body.model_validate_json(body.model_dump_json(by_alias=True)) == body


@pytest.mark.parametrize(
    ("value", "place", "message"),
    [
        (5, (), "must be a string"),
        ({}, (), "this is neither"),
        ({"text": "a", "url": "https://a.b"}, (), "this has url and text"),
        ("  ", ("text",), "is blank"),
        ({"text": "a", "titel": "b"}, ("titel",), "Extra inputs"),
        ({"text": 5}, ("text",), "valid string"),
        ({"url": "ftp://a.b/c"}, ("url",), "starts with http:// or https://"),
        ({"url": "https://a.b/c d"}, ("url",), "one URL"),
        ({"url": "http://[::1"}, ("url",), "starts with"),
        ({"base64": ""}, ("base64",), "is empty"),
        ({"base64": "aGk"}, ("base64",), "is not base64: incorrect padding"),
        ({"base64": "a-_="}, ("base64",), "is not base64"),
        ({"base64": "é"}, ("base64",), "is not base64"),
        ({"base64": "AAAA" * 6_666_667}, ("base64",), "larger than 20 MB"),
    ],
)
def test_document_reference_mistakes_have_a_pointer(value, place, message):
    with pytest.raises(ValidationError) as raised:
        Body.model_validate({"document": value})
    [error] = raised.value.errors()
    assert error["loc"] == ("document", *place)
    assert message in error["msg"]


async def test_inline_documents_are_read_by_their_type():
    for value in ("<html><title>T</title>Naïve", "data:;base64,PGh0bWw+PHRpdGxlPlQ8L3RpdGxlPk5hw692ZQ=="):
        sent = decode_inline(Body(document=value).document)
        found = await read(sent.data, sent.content_type, name=sent.name, title=sent.title)
        assert (found.text, found.title, found.content_type) == ("Naïve", "T", "text/html")
