"""Where the gateway's outbound client connects, and where it does not."""

import asyncio
from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path

import httpcore
import httpx
import pytest

from sevenfold.adapters.outbound.addresses import UnsafeUrlError, is_loopback, is_public
from sevenfold.adapters.outbound.connections import GuardedConnections, UnresolvableError, resolve_by_system
from sevenfold.adapters.outbound.guarded_http import guarded_client
from sevenfold.adapters.outbound.urls import check_url
from tests.support.outbound_peers import Resolver, answers, falls_out_of_tls, peer, redirects, resets, tls_for

# Loading it again for each of a hundred clients takes longer than the rest of the tests.
TRUST = httpx.create_ssl_context()

METADATA = "169.254.169.254"

PUBLIC = ["8.8.8.8", "93.184.216.34", "2606:4700:4700::1111", "2a00:1450:4001:80b::200e", "::ffff:8.8.8.8"]

NOT_PUBLIC = [
    *("127.0.0.1", "127.255.255.254", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", METADATA),  # noqa: S104
    *("100.64.0.1", "100.100.100.200", "168.63.129.16", "192.0.0.192", "192.0.0.8", "192.0.2.1", "192.88.99.1"),
    *("198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255"),
    *("::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", f"::ffff:{METADATA}", "::ffff:0:127.0.0.1"),
    *("64:ff9b::7f00:1", "64:ff9b:1::7f00:1", "2002:7f00:1::", "2001::1", "2001:0:7f00:1::", "2001:db8::1"),
    *("2001:2::1", "2001:10::1", "3fff::1", "5f00::1", "100::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%1"),
    *("fec0::1", "ff02::1", "ff0e::1", "2606:4700:4700::1111%1"),
]

# Forms of this machine that some resolver somewhere understands.
FORMS_OF_LOOPBACK = [
    *("127.0.0.1", "127.1", "127.0.1", "2130706433", "0x7f.1", "0x7f000001", "0177.0.0.1", "017700000001", "0"),
    *("127.0.0.1.", "0.0.0.0", "::1", "::", "::ffff:127.0.0.1", "::ffff:7f00:1", "::127.0.0.1"),  # noqa: S104
    *("localhost", "localhost.", "LOCALHOST", "hooks.localhost", "ip6-localhost"),
]


def in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


UNSAFE_URLS = [
    *(f"https://{in_url(address)}/" for address in NOT_PUBLIC),
    *(f"https://{in_url(form)}/" for form in FORMS_OF_LOOPBACK if form != "ip6-localhost"),
    # digits and dots of other scripts
    *("https://\uff11\uff12\uff17.0.0.1/", "https://127\u30020\uff0e0\uff611/", "https://\u2460\u2461\u2466.0.0.1/"),
    *("https://%31%32%37.0.0.1/", "https://127.0.0.1%2f/", "https://127.0.0.1%00.example.com/"),
    # who reads what as the host
    *("https://user@example.com/", "https://user:secret@example.com/", "https://example.com@127.0.0.1/"),
    *("https://example.com:443@127.0.0.1/", "https://127.0.0.1#@example.com/", "https://127.0.0.1?@example.com/"),
    *("https://127.0.0.1\\@example.com/", "https://example.com\\@127.0.0.1/", "https://127.0.0.1\\.example.com/"),
    *("https://exa mple.com/", "https://example.com/\r\nHost: x", "https://example.com/\t", " https://example.com/"),
    *("https://\u2028.example.com/", "https://\u202e.example.com/", "https://example.com/\ud800", "https://\x00/"),
    # schemes
    *("http://example.com/", "ftp://example.com/", "file:///etc/passwd", "gopher://example.com/", "//example.com/"),
    *("", "example.com", "/path", "https:", "https://", "https:///path", "https:example.com", "https://:443/"),
    *("javascript:alert(1)", "data:text/plain,x", "unix:///run/docker.sock", "http+unix://%2frun%2fdocker.sock/"),
    # ports
    *(
        f"https://example.com:{port}/"
        for port in ("22", "6379", "8443", "0", "-1", "65536", "99999999", "a", "80:80")
    ),
    # names that are none
    *("https://.example.com/", "https://a..b/", "https://example.com./", "https://-a.example.com/", "https://a-/"),
    *("https://xn--99999999999/", "https://xn--/", f"https://{'a' * 64}.com/", f"https://{'a.' * 127}com/"),
    *("https://[::1/", "https://[127.0.0.1]/", "https://[v1.x]/", "https://a*b.example.com/", "https://1.2.3.4.5/"),
    *("https://example.com/" + "a" * 2048, "https://example.com/" + "ä" * 1000),
]

SAFE_URLS = [
    *(
        "https://example.com",
        "https://example.com/path?x=1#part",
        "HTTPS://EXAMPLE.COM:443/",
        "https://example.com:80/",
    ),
    *(
        "https://8.8.8.8/",
        "https://[2606:4700:4700::1111]/",
        "https://münchen.example/ä",
        "https://xn--mnchen-3ya.de/",
    ),
    *("https://a_b.example.com/", "https://hooks.127.example.com/", "https://1password.com/", "https://e.co/@user"),
]


@pytest.mark.parametrize("address", PUBLIC)
def test_public_address_is_allowed(address: str) -> None:
    assert is_public(ip_address(address))


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_non_public_address_is_refused(address: str) -> None:
    assert not is_public(ip_address(address))


def test_loopback_addresses_are_recognised() -> None:
    assert all(is_loopback(ip_address(address)) for address in ("127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"))
    assert not any(is_loopback(ip_address(address)) for address in ("0.0.0.0", "::", "::127.0.0.1", METADATA))  # noqa: S104


@pytest.mark.parametrize("url", SAFE_URLS)
def test_allowed_url(url: str) -> None:
    checked = check_url(url, allow_loopback=False)
    assert check_url(str(checked), allow_loopback=False).raw_host == checked.raw_host


@pytest.mark.parametrize("url", UNSAFE_URLS)
async def test_forbidden_url_is_never_called(url: str) -> None:
    with pytest.raises(UnsafeUrlError) as refusal:
        check_url(url, allow_loopback=False)
    assert str(refusal.value).endswith(".")
    assert "secret" not in str(refusal.value)
    resolver = Resolver([["127.0.0.1"]])
    async with guarded_client(allow_loopback=False, timeout=20, resolve=resolver, ssl_context=TRUST) as client:
        # some of them httpx takes for no URL itself
        with pytest.raises((UnsafeUrlError, httpx.InvalidURL, UnicodeError)):
            await client.get(url)
    assert resolver.asked == []


@pytest.mark.parametrize("host", FORMS_OF_LOOPBACK)
async def test_no_notation_of_loopback_is_connected_to(host: str) -> None:
    """Below the check of URLs, with the machine's own resolver and a port at which somebody listens."""
    async with peer(answers(), host="0.0.0.0") as everywhere:  # noqa: S104
        connections = GuardedConnections(resolve_by_system, allow_loopback=False)
        with pytest.raises((UnsafeUrlError, UnresolvableError)):
            await connections.connect_tcp(host, everywhere.port, timeout=20)
        await asyncio.sleep(0)
        assert everywhere.connections == 0


@pytest.mark.parametrize("mark", [" ", "\u00a0", "\u2028", "\u202e", "\u200b"])
def test_url_with_invisible_characters_is_refused(mark: str) -> None:
    # harmless once percent-encoded, but what a user reads would not be what is called
    with pytest.raises(UnsafeUrlError, match="unprintable"):
        check_url(f"https://example.com/{mark}x", allow_loopback=False)


async def test_loopback_is_allowed_in_development() -> None:
    for form in ("http://localhost:1/", "https://a.localhost:99/", "http://127.9.9.9:65535/", "http://[::1]:8080/"):
        check_url(form, allow_loopback=True)
    for form in (
        f"http://{METADATA}/",
        "http://10.0.0.1/",
        "http://0.0.0.0/",
        "http://a.com:99/",
        "http://127.1/",
        "http://127.0.0.1:65536/",
    ):
        with pytest.raises(UnsafeUrlError):
            check_url(form, allow_loopback=True)
    async with peer(answers()) as host, guarded_client(allow_loopback=True, timeout=20) as client:
        answer = await client.post(host.url, content=b"")
        assert answer.content == b"hello"
        assert host.connections == 1


@pytest.mark.parametrize(
    "addresses",
    [["127.0.0.1"], ["8.8.8.8", "127.0.0.1"], ["127.0.0.1", "8.8.8.8"], ["2606:4700:4700::1111", "::1"], [METADATA]],
)
async def test_one_forbidden_resolved_address_refuses_the_request(addresses: list[str]) -> None:
    resolver = Resolver([addresses])
    async with guarded_client(allow_loopback=False, timeout=20, resolve=resolver) as client:
        with pytest.raises(UnsafeUrlError, match="not on the public internet"):
            await client.post("https://hooks.example.com/")
    assert resolver.asked == ["hooks.example.com"]


async def test_name_of_a_private_address_is_refused_in_development_too() -> None:
    for address in (METADATA, "10.0.0.1", "0.0.0.0", "64:ff9b::7f00:1"):  # noqa: S104
        resolver = Resolver([["127.0.0.1", address]])
        async with guarded_client(allow_loopback=True, timeout=20, resolve=resolver) as client:
            with pytest.raises(UnsafeUrlError):
                await client.post("http://hooks.localhost:9/")


async def test_name_is_resolved_once_against_dns_rebinding() -> None:
    async with (
        peer(answers()) as host,
        guarded_client(
            allow_loopback=True, timeout=20, resolve=(resolver := Resolver([["127.0.0.1"], ["127.0.0.2"]]))
        ) as client,
        peer(answers(), host="127.0.0.2", port=host.port) as other,
    ):
        await client.get(f"http://hooks.localhost:{host.port}/")
        assert (host.connections, other.connections) == (1, 0)
        assert len(resolver.asked) == 1


async def test_checked_address_is_the_one_that_is_connected_to() -> None:
    # 2d00::/8 was never given to anybody
    async with peer(answers()) as host:
        connections = GuardedConnections(resolver := Resolver([["2d00::1"], ["127.0.0.1"]]), allow_loopback=False)
        with pytest.raises((httpcore.ConnectError, httpcore.ConnectTimeout)):
            await connections.connect_tcp("hooks.example.com", host.port, timeout=1)
        assert len(resolver.asked) == 1
        assert host.connections == 0


@pytest.mark.parametrize(("nobody", "found"), [(0, True), (1, True), (7, True), (8, False)])
async def test_addresses_are_tried_in_order_up_to_a_limit(nobody: int, found: bool) -> None:
    async with peer(answers()) as host:
        addresses = [*(f"127.0.1.{last}" for last in range(nobody)), "127.0.0.1", "127.0.0.2"]
        resolver = Resolver([addresses])
        async with guarded_client(allow_loopback=True, timeout=120, resolve=resolver) as client:
            if found:
                assert (await client.get(f"http://hooks.localhost:{host.port}/")).status_code == 200
            else:
                with pytest.raises(httpx.ConnectError):
                    await client.get(f"http://hooks.localhost:{host.port}/")
        assert host.connections == found


async def test_connection_is_reused_for_the_same_host_only() -> None:
    resolver = Resolver([["127.0.0.1"]])
    async with peer(answers()) as host, guarded_client(allow_loopback=True, timeout=20, resolve=resolver) as client:
        for name in ("a.localhost", "a.localhost", "b.localhost"):
            await client.get(f"http://{name}:{host.port}/")
        assert resolver.asked == ["a.localhost", "b.localhost"]
        assert host.connections == 2


async def test_request_never_uses_a_connection_that_the_server_is_closing() -> None:
    """Servers drop a connection that was not used for five seconds: by then it is not used any more."""
    async with peer(answers()) as host, guarded_client(allow_loopback=True, timeout=20) as client:
        for pause in (4.0, 0.0):
            await client.get(host.url)
            await asyncio.sleep(pause)
        assert host.connections == 2


async def test_tls_verifies_the_host_name(tmp_path: Path) -> None:
    tls = tls_for("hooks.localhost", tmp_path)
    resolver = Resolver([["127.0.0.1"]])
    async with (
        peer(answers(), tls=tls.server) as host,
        guarded_client(allow_loopback=True, timeout=20, resolve=resolver, ssl_context=tls.client) as client,
    ):
        assert (await client.get(f"https://hooks.localhost:{host.port}/x")).status_code == 200
        assert tls.names == ["hooks.localhost"]
        assert f"Host: hooks.localhost:{host.port}\r\n" in host.heads[0]
        assert host.heads[0].startswith("GET /x HTTP/1.1\r\n")
        with pytest.raises(httpx.ConnectError, match="certificate"):
            await client.get(f"https://other.localhost:{host.port}/")
        with pytest.raises(httpx.ConnectError, match="certificate"):
            await client.get(f"https://other.localhost:{host.port}/", extensions={"sni_hostname": "hooks.localhost"})
    async with peer(answers(), tls=tls.server) as host, guarded_client(allow_loopback=True, timeout=20) as client:
        with pytest.raises(httpx.ConnectError, match="certificate"):
            await client.get(f"https://localhost:{host.port}/")


async def test_proxies_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    async with peer(answers(b"proxied")) as proxy, peer(answers()) as host:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        async with guarded_client(allow_loopback=True, timeout=20) as client:
            assert (await client.get(host.url)).content == b"hello"
        assert (proxy.connections, host.connections) == (0, 1)


REDIRECTS = [b"/elsewhere", b"http://169.254.169.254/", b"https://xn--99999999999/", b"http://[::1", b"//[x", b"\xff"]


@pytest.mark.parametrize("to", REDIRECTS)
@pytest.mark.parametrize("follow", [False, True])
async def test_redirect_is_not_followed(to: bytes, follow: bool) -> None:
    async with peer(redirects(to)) as host, guarded_client(allow_loopback=True, timeout=20) as client:
        answer = await client.post(host.url, content=b"", follow_redirects=follow)
        assert answer.status_code == 302
        assert len(host.heads) == 1


async def test_no_cookie_is_kept_between_requests() -> None:
    cookie = answers(b"", "Set-Cookie: a=b; Path=/")
    async with peer(cookie) as host, guarded_client(allow_loopback=True, timeout=20) as client:
        await client.get(host.url)
        await client.get(host.url)
        assert len(host.heads) == 2
        assert "cookie" not in "".join(host.heads).lower()


async def test_unix_sockets_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsafeUrlError):
        await GuardedConnections(resolve_by_system, allow_loopback=True).connect_unix_socket(str(tmp_path / "socket"))


async def failure_of(url: str, **options: object) -> type[Exception]:
    async with guarded_client(allow_loopback=True, timeout=20, **options) as client:  # type: ignore[arg-type]
        with pytest.raises(httpx.TransportError) as failure:
            await client.get(url)
        assert failure.value.request.method == "GET"
        return failure.type


async def test_connection_failures_raise_httpx_exceptions(tmp_path: Path) -> None:
    async with peer(answers()) as gone:
        pass
    assert await failure_of(gone.url) is httpx.ConnectError
    async with peer(resets()) as host:
        assert await failure_of(host.url) is httpx.ReadError
    async with peer(resets(after=b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")) as host:
        assert await failure_of(host.url) in (httpx.ReadError, httpx.RemoteProtocolError)
    async with peer(resets(after=b"220 smtp.example.com ESMTP\r\n\r\n")) as host:
        assert await failure_of(host.url) is httpx.RemoteProtocolError
    assert await failure_of("http://hooks.localhost:9/", resolve=Resolver([[]])) is UnresolvableError

    async def fails(host: str, port: int) -> Iterable[object]:
        raise OSError("no such name")

    assert await failure_of("http://hooks.localhost:9/", resolve=fails) is UnresolvableError


async def test_tls_failures_after_the_handshake_raise_httpx_exceptions(tmp_path: Path) -> None:
    tls = tls_for("hooks.localhost", tmp_path)
    async with peer(falls_out_of_tls, tls=tls.server) as host:
        url = f"https://hooks.localhost:{host.port}/"
        assert await failure_of(url, resolve=Resolver([["127.0.0.1"]]), ssl_context=tls.client) is httpx.ReadError
