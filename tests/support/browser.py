"""A real Chromium, and a page of another site."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from playwright.async_api import Page, async_playwright

EVIL = "http://evil.example"


@asynccontextmanager
async def foreign_page() -> AsyncIterator[int]:
    """The port of a server with one empty page."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n<body></body>")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


@asynccontextmanager
async def browser_page(url: str) -> AsyncIterator[Page]:
    """A page in Chromium. evil.example resolves to this machine in this browser alone: nothing leaves the machine."""
    chromium = shutil.which("chromium")
    if chromium is None and not os.environ.get("CI"):
        pytest.skip("there is no chromium here")
    assert chromium, "the CI has to have chromium"
    arguments = [
        "--no-sandbox",
        "--host-resolver-rules=MAP evil.example 127.0.0.1, MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
    ]
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=arguments)
        page = await browser.new_page()
        await page.goto(url)
        yield page
        await browser.close()
