"""Web pages of other sites, and foreign host names, get nowhere: over raw HTTP, and in a real Chromium."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from sevenfold.runtime.config.settings import load_settings
from sevenfold.runtime.startup import StartupError
from tests.support.browser import EVIL, browser_page, foreign_page
from tests.support.stack import Stack, running_stack

RUNS = "/api/agent/runs"


@pytest.fixture(scope="module")
async def guarded(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    directory = tmp_path_factory.mktemp("guarded")
    async with running_stack(directory, allowed_hosts=("gateway.example",)) as stack:
        yield stack


async def status(stack: Stack, method: str = "GET", path: str = RUNS, **headers: str) -> int:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return (await stack.http.request(method, path, headers=named)).status_code


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "localhost.", "[::1]:1", "gateway.example:443"])
async def test_own_host_names_are_served(guarded: Stack, host: str) -> None:
    assert await status(guarded, Host=host) == 200


FOREIGN_HOSTS = ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "evil.example:8000"]
FOREIGN_HOSTS += ["localhost@evil.example", "0.0.0.0", "127.0.0.2", "10.0.0.1", "xlocalhost", "[::]", "[", ""]  # noqa: S104


@pytest.mark.parametrize("host", FOREIGN_HOSTS)
async def test_foreign_host_names_are_refused(guarded: Stack, host: str) -> None:
    answer = await guarded.http.get(RUNS, headers={"Host": host})
    assert answer.status_code == 421
    assert answer.json()["type"] == "/problems/misdirected-request"
    assert answer.json()["detail"].startswith("header:Host: ")


async def first_line(stack: Stack, *lines: str) -> bytes:
    """The status line of the answer to a raw request."""
    reader, writer = await asyncio.open_connection("127.0.0.1", stack.settings.port)
    writer.write("\r\n".join([*lines, "", ""]).encode())
    try:
        return await asyncio.wait_for(reader.readline(), 10)
    finally:
        writer.close()


async def test_two_host_headers_are_refused(guarded: Stack) -> None:
    answer = await first_line(guarded, f"GET {RUNS} HTTP/1.1", "Host: localhost", "Host: evil.example")
    assert answer.startswith((b"HTTP/1.1 421 ", b"HTTP/1.1 400 "))


async def test_probes_may_use_any_host(guarded: Stack) -> None:
    for path in ("/health/live", "/health/ready"):
        assert await status(guarded, path=path, Host="10.1.2.3:8000") == 200


async def test_no_operation_is_open_to_foreign_pages_or_hosts(guarded: Stack) -> None:
    document = (await guarded.http.get("/openapi.json")).json()
    paths = [(method.upper(), path) for path, item in document["paths"].items() for method in item]
    paths += [
        ("GET", path) for path in ("/docs", "/openapi.json", "/asyncapi.json", "/swagger/swagger-ui.css", "/no")
    ]
    assert len(paths) > 40
    for method, path in paths:
        assert await status(guarded, method, path, Origin=EVIL) == 403, (method, path)
        assert await status(guarded, method, path, Origin="null") == 403, (method, path)
        assert await status(guarded, method, path, Sec_Fetch_Site="cross-site") == 403, (method, path)
        if not path.startswith("/health/"):
            assert await status(guarded, method, path, Host="evil.example") == 421, (method, path)


async def test_own_pages_and_links_work(guarded: Stack) -> None:
    port = guarded.settings.port
    assert await status(guarded, Origin=f"http://127.0.0.1:{port}") == 200
    assert await status(guarded, Origin=f"http://localhost:{port}") == 403, "another origin than 127.0.0.1"
    assert await status(guarded, Origin=f"http://127.0.0.1:{port + 1}") == 403
    assert await status(guarded, Host="gateway.example", Origin="https://gateway.example") == 200, "behind a proxy"
    link = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate"}
    assert await status(guarded, path="/docs", **link, Sec_Fetch_Dest="document") == 200
    assert await status(guarded, path="/docs", **link, Sec_Fetch_Dest="iframe") == 403
    assert await status(guarded, "POST", "/api/agent/query", **link, Sec_Fetch_Dest="document") == 403


async def test_answers_carry_security_headers(guarded: Stack) -> None:
    assert (await guarded.http.get(RUNS)).headers["x-content-type-options"] == "nosniff"
    policy = (await guarded.http.get("/docs")).headers["content-security-policy"]
    assert "frame-ancestors 'none'" in policy


@pytest.mark.parametrize(
    ("headers", "refused"),
    [({"Origin": EVIL}, 403), ({"Origin": "null"}, 403), ({"Host": "evil.example"}, 421)],
)
async def test_websockets_of_foreign_pages_are_refused(guarded: Stack, headers: dict[str, str], refused: int) -> None:
    url = f"ws://127.0.0.1:{guarded.settings.port}/api/agent/stream/ws"
    if "Host" in headers:
        lines = ["GET /api/agent/stream/ws HTTP/1.1", "Host: evil.example", "Connection: Upgrade"]
        lines += ["Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]
        assert (await first_line(guarded, *lines)).startswith(f"HTTP/1.1 {refused} ".encode())
        return
    with pytest.raises(InvalidStatus) as caught:
        async with connect(url, additional_headers=headers, proxy=None):
            pass
    assert caught.value.response.status_code == refused


# A page's attempts, each answered by what became of it: everything that a browser lets a page send.
ATTEMPTS = """async ([gateway, socket]) => {
  const body = JSON.stringify({query: "from a page"});
  const tries = {
    fetch: () => fetch(gateway + "/api/agent/query",
      {method: "POST", body, headers: {"Content-Type": "application/json"}})
      .then(async (r) => r.status + " " + (r.headers.get("x-request-id") || "")),
    simple: () => fetch(gateway + "/api/agent/query", {method: "POST", body, mode: "no-cors"}).then((r) => r.type),
    read: () => fetch(gateway + "/api/agent/runs").then((r) => "read " + r.status),
    events: () => new Promise((done, failed) => {
      const source = new EventSource(gateway + "/api/agent/events/stream");
      source.onopen = () => { source.close(); done("open"); };
      source.onerror = () => { source.close(); failed(new Error("refused")); };
    }),
    socket: () => new Promise((done, failed) => {
      const opened = new WebSocket(socket + "/api/agent/stream/ws");
      opened.onopen = () => { opened.close(); done("open"); };
      opened.onerror = () => failed(new Error("refused"));
    }),
    image: () => new Promise((done) => {
      const image = new Image();
      image.onload = image.onerror = () => done("asked");
      image.src = gateway + "/api/agent/runs";
    }),
    form: () => new Promise((done) => {
      const frame = document.createElement("iframe");
      frame.name = "target";
      document.body.append(frame);
      const form = document.createElement("form");
      Object.assign(form,
        {action: gateway + "/api/agent/tasks", method: "POST", target: "target", enctype: "text/plain"});
      const field = document.createElement("input");
      field.name = '{"task": "work", "x": "'; field.value = '"}';
      form.append(field); document.body.append(form);
      frame.onload = () => done("sent");
      form.submit();
    }),
  };
  const found = {};
  for (const [name, attempt] of Object.entries(tries)) {
    try { found[name] = await attempt(); } catch (error) { found[name] = "refused"; }
  }
  return found;
}"""


async def attempts(gateway: str, port: int) -> tuple[dict[str, str], int | None]:
    """What a page of evil.example achieves in Chromium, and the status of the gateway under that name (rebinding)."""
    async with browser_page(f"{EVIL}:{port}/") as page:
        found = await page.evaluate(ATTEMPTS, [gateway, gateway.replace("http", "ws")])
        rebound = await page.goto(f"{EVIL}:{gateway.rpartition(':')[2]}{RUNS}")
    return found, rebound.status if rebound else None


async def count_runs(stack: Stack) -> int:
    return len((await stack.http.get(RUNS)).json()["items"])


async def test_a_foreign_page_in_chromium_achieves_nothing(tmp_path: Path) -> None:
    async with running_stack(tmp_path) as stack, foreign_page() as port:
        found, rebound = await attempts(f"http://127.0.0.1:{stack.settings.port}", port)
        assert found | {"simple": "", "image": "", "form": ""} == {
            "fetch": "refused",
            "read": "refused",
            "events": "refused",
            "socket": "refused",
            # the browser sends these and shows the page nothing of the answer
            "simple": "",
            "image": "",
            "form": "",
        }, json.dumps(found)
        assert rebound == 421
        await asyncio.sleep(1)  # visibility is a moment late
        assert await count_runs(stack) == 0


async def test_an_allowed_origin_has_full_cors(tmp_path: Path) -> None:
    async with foreign_page() as port, running_stack(tmp_path, cors_origins=(f"{EVIL}:{port}",)) as stack:
        found, _ = await attempts(f"http://127.0.0.1:{stack.settings.port}", port)
        assert found["fetch"].startswith("200 req_"), "the exposed header can be read"
        assert found["read"] == "read 200"
        assert found["events"] == "open"
        assert found["socket"] == "open"
        preflight = await stack.http.options(
            RUNS, headers={"Origin": f"{EVIL}:{port}", "Access-Control-Request-Method": "POST"}
        )
        assert preflight.headers["access-control-allow-origin"] == f"{EVIL}:{port}"
        assert "access-control-allow-credentials" not in preflight.headers
        assert await status(stack, Origin=EVIL) == 403, "another port is another origin"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:1"])
async def test_pages_under_the_public_url_may_call_through_a_proxy(tmp_path: Path, host: str) -> None:
    async with running_stack(tmp_path, public_url="https://Agents.Example.com:8443/") as stack:
        origin = "https://agents.example.com:8443"
        assert await status(stack, Origin=origin, Host=host) == 200, "a proxy passes on a host of its own"
        assert await status(stack, Host="agents.example.com") == 200
        assert await status(stack, Origin="https://agents.example.com") == 403, "another port is another origin"
        document = (await stack.http.get("/asyncapi.json")).json()
        assert document["servers"]["gateway"]["host"].lower() == "agents.example.com:8443"


async def test_refusals_carry_the_requests_own_id(guarded: Stack) -> None:
    answer = await guarded.http.get(RUNS, headers={"Host": "evil.example", "X-Request-Id": "mine-1"})
    assert answer.headers["x-request-id"] == answer.json()["requestId"] == "mine-1"


@pytest.mark.parametrize("value", ["gateway:8000", "https://a.example", "a/b", "a b"])
def test_hosts_that_could_never_match_are_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEVENFOLD_ALLOWED_HOSTS", value)
    with pytest.raises(StartupError, match="ALLOWED_HOSTS"):
        load_settings()


def test_hosts_and_origins_are_normalized(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEVENFOLD_ALLOWED_HOSTS", "gateway, [fd00::5]")
    monkeypatch.setenv("SEVENFOLD_CORS_ORIGINS", "https://App.Example.com")
    settings = load_settings()
    assert settings.allowed_hosts == ("gateway", "fd00::5")
    assert settings.cors_origins == ("https://app.example.com",)
