"""The example readers of a stream, in Python and in a real browser, over connections that break."""

import asyncio
import itertools
import json
import os
import re
import shutil
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any
from urllib.parse import quote

import pytest
from playwright.async_api import Browser, Page, async_playwright, expect

from examples.streams.read_stream import StreamFailedError, StreamReader
from tests.support.stack import ROOT, Stack, http_client

EXAMPLES = ROOT / "examples" / "streams"
FILES = {"/": ("index.html", "text/html"), "/read-stream.js": ("read-stream.js", "text/javascript")}

# U+2028 and U+0085 end lines for some, but not on this wire.
TEXT = "".join(f"{number}. Grüße aus Köln 🎉\u2028und\u0085 👩‍🚀 zurück\n" for number in range(50))
FIFTY = {"agent": "simulator", "params": {"seconds": 1.5, "steps": 50, "text": TEXT}}

# Where to cut an answer of which so much is known; None: not yet.
Limit = Callable[[bytes], int | None]

Received = list[tuple[str, dict[str, Any]]]
Listen = Callable[..., Awaitable[Received]]


def the_answer(_: bytes) -> int | None:
    """Nothing of the answer gets through."""
    return 0


def after_bytes(count: int) -> Limit:
    """So many bytes of the body get through."""
    return lambda seen: at if (at := seen.find(b"\r\n\r\n") + 4 + count) <= len(seen) else None


def after_chunks(count: int) -> Limit:
    """So many chunks get through."""

    def limit(seen: bytes) -> int | None:
        ends = [match.end() for match in re.finditer(rb"\nid: \d+\n\n", seen)]
        return ends[count - 1] if len(ends) >= count else None

    return limit


class Server:
    """Serves the page and its script; what goes to /api, a subclass answers in `_answer`."""

    def __init__(self) -> None:
        self.port = 0
        self.heads: list[bytes] = []
        self.times: list[float] = []
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def listen(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def refuse(self) -> None:
        assert self._server is not None
        self._server.close()

    async def end(self) -> None:
        self.refuse()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A task of our own: the stream's own task would report its cancellation to the loop as an error.
        connection = asyncio.create_task(self._serve(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                head = await reader.readuntil(b"\r\n\r\n")
                path = head.split(b" ")[1].decode().partition("?")[0]
                if path.startswith("/api/"):
                    self.heads.append(head)
                    self.times.append(time.monotonic())
                    await self._answer(head, reader, writer)
                else:
                    writer.write(_file(path))
                    await writer.drain()
        finally:
            writer.close()

    async def _answer(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise NotImplementedError


def _file(path: str) -> bytes:
    if path not in FILES:
        return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    name, media_type = FILES[path]
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {media_type}; charset=utf-8\r\nConnection: close\r\n\r\n"
    return head.encode() + (EXAMPLES / name).read_bytes()


class CuttingProxy(Server):
    """Before the product. Every connection to a stream is cut at the next of the limits; after every third one
    nobody listens for a moment.
    """

    def __init__(self, upstream: int, limits: Iterable[Limit]) -> None:
        super().__init__()
        self.cuts = 0
        self.stream_ids: set[bytes] = set()
        self._upstream = upstream
        self._limits = iter(limits)

    async def _answer(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", self._upstream)
        upstream_writer.write(re.sub(rb"(?i)\r\nConnection:[^\r]*", b"", head[:-2]) + b"Connection: close\r\n\r\n")
        is_stream = b"/cancel" not in head.partition(b"\r\n")[0]
        limit = next(self._limits, None) if is_stream else None
        asking = asyncio.create_task(_copy(reader, upstream_writer))
        try:
            await self._copy_until(limit, upstream_reader, writer)
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)

    async def _copy_until(
        self, limit: Limit | None, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        seen = b""
        while piece := await reader.read(4096):
            passed = len(seen)
            seen += piece
            self.stream_ids.update(re.findall(rb"(?i)\r\nx-stream-id: (\S+)", seen))
            end = limit(seen) if limit else None
            writer.write(seen[passed:end])
            await writer.drain()
            if end is not None:
                await self._cut(writer)
                return

    async def _cut(self, writer: asyncio.StreamWriter) -> None:
        assert writer.transport is not None
        writer.transport.abort()
        self.cuts += 1
        if self.cuts % 3 == 0:
            self.refuse()
            await asyncio.sleep(0.2)
            await self.listen()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until either side goes; the other then goes too."""
    try:
        while piece := await reader.read(4096):
            writer.write(piece)
            await writer.drain()
    finally:
        writer.close()


@asynccontextmanager
async def listening(server: Server) -> AsyncIterator[None]:
    await server.listen()
    try:
        yield
    finally:
        await server.end()


@asynccontextmanager
async def cutting(stack: Stack, *first: Limit, then: Iterable[Limit] = ()) -> AsyncIterator[CuttingProxy]:
    proxy = CuttingProxy(stack.settings.port, itertools.chain(first, then))
    async with listening(proxy):
        yield proxy


def again_and_again() -> Iterator[Limit]:
    """Limits without end, each of which lets something through: in the middle of events, and between them."""
    for number in itertools.count():
        yield after_bytes(1_000 + number)
        yield after_chunks(8)


class Scripted(Server):
    """Sends scripted answers, one after the other, in pieces of so many bytes. One that ends with the
    comment `stays open` does.
    """

    def __init__(self, *answers: bytes, piece: int = 1_000) -> None:
        super().__init__()
        self._answers = list(answers)
        self._piece = piece

    async def _answer(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answer = self._answers.pop(0) if self._answers else b""
        for start in range(0, len(answer), self._piece):
            writer.write(answer[start : start + self._piece])
            await writer.drain()
            await asyncio.sleep(0)
        if answer.endswith(b": stays open\n\n"):
            await reader.read()


def answer(body: str, status: str = "200 OK", media_type: str = "text/event-stream", headers: str = "") -> bytes:
    """An answer that ends with its connection."""
    lines = f"HTTP/1.1 {status}\r\nContent-Type: {media_type}\r\nConnection: close\r\n{headers}"
    return f"{lines}Location: /api/agent/stream/str_1\r\n\r\n{body}".encode()


def header(head: bytes, name: str) -> str | None:
    match = re.search(rf"\r\n{name}: ([^\r]*)".encode(), head, re.IGNORECASE)
    return match[1].decode() if match else None


@pytest.fixture(scope="module")
async def browser() -> AsyncIterator[Browser]:
    chromium = shutil.which("chromium")
    if chromium is None and not os.environ.get("CI"):
        pytest.skip("there is no chromium here")
    assert chromium, "the CI has to have chromium"
    async with async_playwright() as playwright:
        started = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield started
        await started.close()


@pytest.fixture
async def page(browser: Browser) -> AsyncIterator[Page]:
    page = await browser.new_page()
    yield page
    await page.close()


@pytest.fixture(params=["python", "javascript"])
def listen(request: pytest.FixtureRequest) -> Listen:
    """Has a reader ask a server: `listen(server, body, stop_after=…, patience=…, silence=…)`. Its callbacks come
    back as (kind, data), a failure as the kind `error`.
    """
    if request.param == "python":
        return within_its_time(listen_in_python)
    page: Page = request.getfixturevalue("page")

    async def listen_in_javascript(server: Server, body: dict[str, Any], **options: Any) -> Received:
        await page.goto(server.url)
        received = await page.evaluate(IN_JAVASCRIPT, [{"query": "hi", **body}, options])
        return [(kind, data) for kind, data in received]

    return within_its_time(listen_in_javascript)


def within_its_time(listen: Listen) -> Listen:
    async def limited(*arguments: Any, **options: Any) -> Received:
        async with asyncio.timeout(60):
            return await listen(*arguments, **options)

    return limited


async def listen_in_python(server: Server, body: dict[str, Any], *, stop_after: int = 0, **options: Any) -> Received:
    received: Received = []
    async with http_client(server.port) as client:
        reader = StreamReader(client, {"query": "hi", **body}, **options)
        try:
            async with aclosing(reader.events()) as events:
                async for event in events:
                    received.append((event.kind, event.data))
                    if event.kind == "chunk" and event.data["index"] == stop_after:
                        await reader.cancel()
        except StreamFailedError as failure:
            received.append(("error", failure.problem))
    return received


# Every read yields a single byte, which a browser's network would rather not do.
IN_JAVASCRIPT = """
async ([body, { stop_after, ...options }]) => {
  const { readStream } = await import("/read-stream.js");
  const { fetch } = window;
  const split = (bytes, out) => bytes.forEach((byte) => out.enqueue(Uint8Array.of(byte)));
  window.fetch = async (...request) => {
    const answer = await fetch(...request);
    const bytes = answer.ok && answer.body.pipeThrough(new TransformStream({ transform: split }));
    return bytes ? Object.defineProperty(answer, "body", { value: bytes }) : answer;
  };
  const calls = [];
  let path;
  const note = (kind) => (data) => calls.push([kind, data]);
  await readStream("/api/agent/stream", body, {
    ...options,
    onOpen: ({ location }) => (path = location),
    onChunk: (data) => {
      note("chunk")(data);
      if (data.index === stop_after) window.fetch(`${path}/cancel`, { method: "POST" });
    },
    onReset: note("reset"),
    onProgress: note("progress"),
    onDone: note("done"),
    onError: note("error"),
  });
  return calls;
}
"""


def text_of(received: Received) -> str:
    text = ""
    for kind, data in received:
        text = "" if kind == "reset" else text + data["chunk"] if kind == "chunk" else text
    return text


def indices_of(received: Received) -> list[int]:
    return [data["index"] for kind, data in received if kind in ("chunk", "reset")]


async def test_reader_gets_every_chunk_once_over_many_cuts(stack: Stack, listen: Listen) -> None:
    async with cutting(stack, the_answer, then=again_and_again()) as proxy:
        received = await listen(proxy, FIFTY)
        assert text_of(received) == TEXT
        assert indices_of(received) == list(range(1, 51))
        assert received[-1][0] == "done"
        assert received[-1][1]["status"] == "completed"
        assert received[-1][1]["usage"]["outputTokens"] == len(TEXT.split())
        assert "progress" in dict(received)
        assert proxy.cuts >= 5
        assert len(proxy.stream_ids) == 1, "the start whose answer was lost began no second run"


async def test_reset_discards_the_text_so_far(stack: Stack, listen: Listen) -> None:
    params = {**FIFTY["params"], "failures": 1, "failAt": 20}
    async with cutting(stack, then=again_and_again()) as proxy:
        received = await listen(proxy, {"agent": "simulator", "params": params})
        assert text_of(received) == TEXT
        assert received[-1][1]["status"] == "completed"
        (reset,) = [data for kind, data in received if kind == "reset"]
        assert reset["attempt"] == 2
        first, second = list(range(1, 20)), list(range(reset["index"], reset["index"] + 51))
        assert indices_of(received) == first + second
        assert proxy.cuts >= 5


async def test_refused_request_raises_its_problem(stack: Stack, listen: Listen) -> None:
    async with cutting(stack) as proxy:
        ((kind, problem),) = await listen(proxy, {"agent": "nobody"})
    assert kind == "error"
    assert problem["status"] == 422
    assert "there is no agent nobody" in problem["detail"]


async def test_failed_run_raises_its_problem(stack: Stack, listen: Listen) -> None:
    async with cutting(stack) as proxy:
        ((kind, problem),) = await listen(proxy, {"agent": "hopeless"})
    assert kind == "error"
    assert (problem["status"], problem["detail"]) == (502, "This agent never does that.")
    assert problem["runId"].startswith("str_")


async def test_reader_stops_the_run(stack: Stack, listen: Listen) -> None:
    params = {**FIFTY["params"], "seconds": 50}
    async with cutting(stack, after_chunks(2)) as proxy:
        received = await listen(proxy, {"agent": "simulator", "params": params}, stop_after=3)
    assert received[-1] == ("done", {"chunk": "", "done": True, "status": "cancelled"})
    assert 3 <= len(indices_of(received)) < 50


DONE = 'event: done\ndata: {"chunk":"","done":true,"status":"completed"}\n\n'


async def test_reader_parses_single_bytes(listen: Listen) -> None:
    crlf = 'retry: 2000\n\n: a comment\n\nid: 1\ndata: {"chunk":"Grüße 🎉\u2028",\ndata:"index":1}\n\n'
    lf = (
        'event:progress\ndata:{"progress":45,"note":"a: b","index":1}\n\nevent: weather\n\nunknown\n'
        'data: {"chunk":"\\n","index":2}\nid: 2\n\n'
    )
    wire = "\ufeff" + crlf.replace("\n", "\r\n") + lf + DONE
    async with listening(server := Scripted(answer(wire), piece=1)):
        received = await listen(server, {})
    assert [kind for kind, _ in received] == ["chunk", "progress", "chunk", "done"]
    assert text_of(received) == "Grüße 🎉\u2028\n"
    assert received[1][1]["note"] == "a: b"


async def test_reader_resumes_at_its_index(listen: Listen) -> None:
    """After `reconnect`, after a silence, and after an event of which the end is missing."""
    server = Scripted(
        answer(
            'retry: 2000\n\ndata: {"chunk":"a","index":1}\nid: 1\n\nevent: reconnect\ndata: {"reconnect":true}\n\n'
        ),
        answer('data: {"chunk":"b","index":2}\nid: 2\n\n: stays open\n\n'),
        answer('data: {"chunk":"c","index":3}\nid: 3\n\ndata: {"chunk":"lost","index":4}\nid: 4\n'),
        answer(f'data: {{"chunk":"d","index":4}}\nid: 4\n\n{DONE}'),
    )
    async with listening(server):
        received = await listen(server, {}, silence=3)
    assert text_of(received) == "abcd"
    assert [head.split(b" HTTP")[0] for head in server.heads] == [
        b"POST /api/agent/stream",
        *[b"GET /api/agent/stream/str_1"] * 3,
    ]
    assert [header(head, "Last-Event-ID") for head in server.heads] == [None, "1", "2", "3"]
    assert {header(head, "Accept") for head in server.heads} == {"text/event-stream"}


async def test_reader_retries_an_unavailable_server(listen: Listen) -> None:
    server = Scripted(
        answer("<p>Bad gateway", "502 Bad Gateway", "text/html"),
        answer("{}", "429 Too Many Requests", "application/problem+json", "Retry-After: 1\r\n"),
        answer("", "503 Service Unavailable", headers="Retry-After: Wed, 21 Oct 2015 07:28:00 GMT\r\n"),
        answer(DONE),
    )
    async with listening(server):
        received = await listen(server, {})
    assert [kind for kind, _ in received] == ["done"]
    assert server.times[2] - server.times[1] >= 0.99
    assert len({header(head, "Idempotency-Key") for head in server.heads}) == 1
    assert all(head.startswith(b"POST ") for head in server.heads)


async def test_answer_that_is_not_a_stream_is_an_error(listen: Listen) -> None:
    async with listening(server := Scripted(answer("<p>Welcome", media_type="text/html"))):
        ((kind, problem),) = await listen(server, {})
    assert (kind, problem) == ("error", {"title": "The answer is a 200, not a stream", "status": 200})


async def test_reader_gives_up_after_its_time(listen: Listen) -> None:
    down = json.dumps({"title": "Temporal cannot be reached", "status": 503, "detail": "Come back."})
    server = Scripted(
        *[answer(down, "503 Service Unavailable", "application/problem+json")] * 20,
        answer(DONE),
    )
    async with listening(server):
        ((kind, problem),) = await listen(server, {}, patience=0.8)
    assert (kind, problem["detail"]) == ("error", "Come back.")
    assert 2 <= len(server.heads) <= 8


async def test_python_reader_command_prints_the_answer(stack: Stack) -> None:
    async with cutting(stack, the_answer, after_chunks(3), then=again_and_again()) as proxy:
        code, out, _ = await command(proxy, "Write a blog post about AI agents", "--agent", "simulator")
        assert code == 0
        assert out == (
            "This is the simulator: no model was asked, and every step was rehearsed. "
            'You asked: "Write a blog post about AI agents".'
        )
        assert proxy.cuts >= 2
        code, _, err = await command(proxy, "hi", "--agent", "nobody")
        assert code == 1
        assert "there is no agent nobody" in err


async def command(server: Server, *arguments: str) -> tuple[int | None, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(EXAMPLES / "read_stream.py"),
        *arguments,
        "--url",
        server.url,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "NO_PROXY": "127.0.0.1", "PYTHONIOENCODING": "utf-8"},
    )
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def open_page(page: Page, server: Server, seconds: float) -> None:
    params = json.dumps({**FIFTY["params"], "seconds": seconds})
    await page.goto(f"{server.url}/?agent=simulator&params={quote(params)}")
    await page.fill("#query", "Write a blog post about AI agents")
    await page.click("#ask")


async def test_browser_page_shows_the_stream(stack: Stack, page: Page) -> None:
    faults: list[object] = []
    page.on("pageerror", lambda fault: faults.append(fault))
    async with cutting(stack, after_bytes(700), after_chunks(10), after_bytes(1_100)) as proxy:
        await open_page(page, proxy, seconds=2)
        await expect(page.locator("#status")).to_have_text("completed", timeout=30_000)
        assert await page.locator("#answer").text_content() == TEXT
        assert await page.locator("#progress").evaluate("bar => bar.value") == 100
        assert await page.locator("#ask").is_enabled()
        assert await page.locator("#stop").is_disabled()
        assert proxy.cuts == 3
    assert faults == []


async def test_browser_page_stop_button_cancels_the_run(stack: Stack, page: Page) -> None:
    async with cutting(stack, after_chunks(3)) as proxy:
        await open_page(page, proxy, seconds=60)
        await expect(page.locator("#answer")).to_contain_text("2. Grüße", timeout=30_000)
        await page.click("#stop")
        await expect(page.locator("#status")).to_have_text("cancelled", timeout=30_000)
        shown = await page.locator("#answer").text_content()
        assert shown
        assert TEXT.startswith(shown)
        assert len(shown) < len(TEXT)


async def test_browser_page_shows_an_error(stack: Stack, page: Page) -> None:
    async with cutting(stack) as proxy:
        await page.goto(f"{proxy.url}/?agent=hopeless")
        await page.fill("#query", "hi")
        await page.press("#query", "Enter")
        await expect(page.locator("#status")).to_have_text("This agent never does that.", timeout=30_000)
