"""Addresses and secrets of webhooks, and documents. Only this machine is named, and what is refused unlooked-up."""

from random import Random
from typing import Any

from bench.fuzz import hostile
from bench.fuzz.campaign import SHORT_WAIT, Case, path, post

# Addresses in literal form alone: a name would be looked up, and the question would leave the machine.
_REFUSED = (
    "http://0x7f.1/", "http://2130706433/", "http://127.1/", "http://0/", "http://0.0.0.0/", "http://[::]/",
    "http://[::1", "http://[::ffff:10.0.0.1]/", "https://169.254.169.254/", "https://10.0.0.1/",
    "https://100.100.100.200/", "https://192.168.0.1/", "https://[fe80::1]/", "https://[fe80::1%25lo]/",
    "https://[64:ff9b::7f00:1]/", "http://127.0.0.1:0/", "http://127.0.0.1:65536/", "http://127.0.0.1:-1/",
    "http://127.0.0.1:1x/", "http://u:p@127.0.0.1/", "http://127.0.0.1:9\\@10.0.0.1/", "//127.0.0.1/",
    "http:127.0.0.1", "http:///x", "http://", "https:", "http://xn--/", "http://xn--a-/", "http://127.0.0.1.:9/",
    "http://127.0.0.1 :9/", "file:///etc/passwd", "gopher://127.0.0.1/", "unix:/x", "javascript:1", "data:,x",
    "ftp://127.0.0.1/", "http://127.0.0.1:9/ x", "http://127.0.0.1:9/\u202e", "http://\u0000/", "http://[::1]:9:9/",
    "http://[127.0.0.1]/", "http://[v1.x]/", "http://256.0.0.1/", "http://\uff11\uff12\uff17.0.0.1/",
)  # fmt: skip
_TAKEN = (
    "http://127.0.0.1:{}/", "http://127.0.0.1:{}/%00", "http://127.0.0.1:{}/?" + "x" * 1_500, "HTTP://127.0.0.1:{}",
    "http://127.0.0.1:{}/#f", "http://127。0。0。1:{}/", "http://[::ffff:127.0.0.1]:{}/", "http://127.0.0.1:{}/../..",
)  # fmt: skip
_SECRETS = (
    "", "x", " ", "\n", "\x00", "whsec_", "whsec_!!!", "whsec_YQ==", "whsec_" + "a" * 32, "whsec_" + "a" * 250,
    "é" * 256, "whsec_\u202e", "😀" * 256, "a" * 257, "WHSEC_abc123", "whsec_abc123,v1,x",
)  # fmt: skip
_DOCUMENTS: tuple[Any, ...] = (
    "http://[::1", "http://", "https://10.0.0.1/", "http://127.0.0.1:0/", "data:text/plain;base64,",
    "data:;base64,!!", "", "data:text/plain;base64,AAAA", {"base64": "AAAA"}, {"base64": "===="},
    {"base64": "JVBERi0="}, {"url": "x"}, {"text": "x", "url": "y"}, {"text": ""}, {"text": "\x00"}, [], 5,
    {"base64": "JVBERi0xLjQKMSAwIG9iago8PA==", "name": "\x00"},
    {"base64": "AAAA", "contentType": "text/html\r\nX: y"}, {"text": "<html>" * 5_000}, {"text": "<!--" * 5_000},
    "\ufeff", {"text": "&" * 20_000}, {"text": "<a " + "b=c " * 20_000 + ">"}, {"base64": "UEsDBBQAAAAIAA=="},
    {"base64": "H4sIAAAAAAAA"}, {"base64": "iVBORw0KGgo="}, {"text": "fine", "title": "t" * 301},
)  # fmt: skip


async def run(case: Case) -> None:
    """One run with an odd webhook, or an analysis of an odd document."""
    random = case.random
    body: dict[str, Any] = {
        "webhookUrl": _url(case),
        "webhookSecret": random.choice((*_SECRETS, hostile.text(random))),
    }
    if random.random() < 0.3:
        body["previousWebhookSecret"] = random.choice((*_SECRETS, hostile.value(random)))
    if random.random() < 0.1:
        body.pop(random.choice(tuple(body)))
    if random.random() < 0.4:
        document = random.choice((*_DOCUMENTS, {"text": hostile.text(random)}, {"base64": hostile.text(random)}))
        await case.ask(post(path("analyze"), hostile.encoded({"document": document, "timeout": 5, **body})))
        return
    starts = (("query", {"query": "hi"}), ("tasks", {"task": "generate_report", "params": {"a": 1}}))
    route, asked = random.choice(starts)
    await case.ask(post(path(route), hostile.encoded({**asked, **body}), SHORT_WAIT))


def _url(case: Case) -> str:
    random = case.random
    roll = random.random()
    if roll < 0.3:
        return random.choice(_TAKEN).format(case.campaign.receiver_port)
    return random.choice(_REFUSED) if roll < 0.8 else _bent(random, random.choice(_REFUSED))


def _bent(random: Random, url: str) -> str:
    """With a character that may split or end it somewhere, in the path, where no name can come of it."""
    odd = ("\x00", "\n", "\t", "\u2028", "é", "%", "@", "\\", "#", "?", "\ufeff", "\ud7ff")
    return f"{url}/{random.choice(odd)}"
