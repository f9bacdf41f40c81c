"""Keys and run tokens in a real Chromium: what a page of an allowed origin can do, and one of another origin."""

from pathlib import Path

from tests.support.browser import EVIL, browser_page, foreign_page
from tests.support.stack import Stack, running_stack
from tests.support.tenants import TenantKey, client_of, key_config

ACME = TenantKey("acme")
API = "/api/agent"
SLOW = {"query": "hi", "agent": "teller", "params": {"say": ["word "] * 100, "pause": 0.1}}

ATTEMPTS = """async ([gateway, socket, run, token, start, key]) => {
  const opened = (url) => new Promise((done, failed) => {
    const source = new EventSource(url);
    source.onmessage = (event) => { source.close(); done(JSON.parse(event.data).chunk); };
    source.onerror = () => { source.close(); failed(new Error("refused")); };
  });
  const spoken = (url, first) => new Promise((done, failed) => {
    const opened = new WebSocket(url);
    opened.onopen = () => opened.send(JSON.stringify(first));
    opened.onmessage = (event) => { opened.close(); done(Object.keys(JSON.parse(event.data))[0]); };
    opened.onerror = () => failed(new Error("refused"));
  });
  const posted = (url, options) => fetch(url, {method: "POST", ...options}).then((r) => String(r.status));
  const headers = {"Content-Type": "application/json", Authorization: "Bearer " + key};
  const body = JSON.stringify({query: "from a page", agent: "echo"});
  const tries = {
    "fetch without": () => posted(gateway + "/query", {body, headers: {"Content-Type": "application/json"}}),
    "fetch with the key": () => posted(gateway + "/query", {body, headers}),
    "status with the token": () => fetch(gateway + "/runs/" + run + "?token=" + token).then((r) => String(r.status)),
    "EventSource without": () => opened(gateway + "/stream/" + run),
    "EventSource with the token": () => opened(gateway + "/stream/" + run + "?token=" + token),
    "EventSource of another run": () => opened(gateway + "/stream/str_" + "a".repeat(26) + "?token=" + token),
    "WebSocket without": () => spoken(socket + "/stream/ws", {query: "hi"}),
    "WebSocket with the start token": () => spoken(socket + "/stream/ws?token=" + start, {query: "hi"}),
    "WebSocket with the token": () => spoken(socket + "/stream/ws?token=" + token, {streamId: run}),
    "cancel with the token": () => posted(gateway + "/stream/" + run + "/cancel?token=" + token, {}),
  };
  const found = {};
  for (const [name, attempt] of Object.entries(tries)) {
    try { found[name] = await attempt(); } catch (error) { found[name] = "refused"; }
  }
  return found;
}"""


async def attempts(stack: Stack, origin: str) -> dict[str, str]:
    """What a page of this origin achieves with valid credentials."""
    async with client_of(stack, ACME) as acme:
        async with acme.stream("POST", f"{API}/stream", json=SLOW) as answer:
            run = answer.headers["X-Stream-Id"]
        scopes = {"scopes": ["stream", "read", "cancel"]}
        token = (await acme.post(f"{API}/runs/{run}/token", json=scopes)).json()["token"]
        start = (await acme.post(f"{API}/tokens", json={"agent": "echo"})).json()["token"]
        gateway = f"http://127.0.0.1:{stack.settings.port}{API}"
        async with browser_page(origin) as page:
            arguments = [gateway, gateway.replace("http", "ws"), run, token, start, ACME.text]
            found: dict[str, str] = await page.evaluate(ATTEMPTS, arguments)
        await acme.post(f"{API}/runs/{run}/cancel")
    return found


async def test_a_page_of_an_allowed_origin_uses_its_credentials(tmp_path: Path) -> None:
    async with foreign_page() as port:
        origin = f"{EVIL}:{port}"
        async with running_stack(tmp_path, more_config=key_config(ACME), cors_origins=(origin,)) as stack:
            assert await attempts(stack, origin) == {
                "fetch without": "401",
                "fetch with the key": "200",
                "status with the token": "200",
                "EventSource without": "refused",
                "EventSource with the token": "word ",
                "EventSource of another run": "refused",
                "WebSocket without": "refused",
                "WebSocket with the start token": "streamId",
                "WebSocket with the token": "streamId",
                "cancel with the token": "202",
            }


async def test_a_page_of_another_origin_achieves_nothing_with_valid_credentials(tmp_path: Path) -> None:
    async with foreign_page() as port, running_stack(tmp_path, more_config=key_config(ACME)) as stack:
        found = await attempts(stack, f"{EVIL}:{port}")
        assert set(found.values()) == {"refused"}, found
