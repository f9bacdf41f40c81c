"""An OpenID Connect issuer on loopback: discovery, a key set that rotates, and tokens signed by its keys."""

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

AUDIENCE = "sevenfold-api"
DISCOVERY = "/.well-known/openid-configuration"
JWKS = "/keys"

_CURVES = {"ES256": ec.SECP256R1, "ES384": ec.SECP384R1, "ES512": ec.SECP521R1}


def make_key(algorithm: str, *, rsa_bits: int = 2048) -> Any:
    """A private key for the algorithm."""
    if algorithm in _CURVES:
        return ec.generate_private_key(_CURVES[algorithm]())
    if algorithm in ("EdDSA", "Ed448"):
        return (ed448.Ed448PrivateKey if algorithm == "Ed448" else ed25519.Ed25519PrivateKey).generate()
    return rsa.generate_private_key(65_537, rsa_bits)


def public_jwk(key: Any, **members: object) -> dict[str, Any]:
    """The public key as a JSON Web Key."""
    public = key.public_key()
    library = (
        RSAAlgorithm
        if isinstance(key, rsa.RSAPrivateKey)
        else ECAlgorithm
        if isinstance(key, ec.EllipticCurvePrivateKey)
        else OKPAlgorithm
    )
    return {**json.loads(library.to_jwk(public)), **members}


class Issuer:
    """Its documents can be replaced, delayed and made to fail; `requests` has the paths that were asked for."""

    def __init__(self) -> None:
        self.keys: dict[str, tuple[str, Any]] = {}
        self.jwks: list[object] = []
        self.requests: list[str] = []
        self.discovery: dict[str, object] = {}
        self.replies: dict[str, tuple[int, bytes, dict[str, str]]] = {}
        self.delay_seconds = 0.0
        self._server: ThreadingHTTPServer | None = None
        self.port = 0
        self.start()
        self.add_key("first", "RS256")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), _handler(self))
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def add_key(self, kid: str, algorithm: str, key: Any = None, **members: object) -> Any:
        key = key or make_key(algorithm)
        self.keys[kid] = (algorithm, key)
        self.jwks.append(public_jwk(key, **{"kid": kid, "use": "sig", **members}))
        return key

    def rotate(self, kid: str, algorithm: str = "ES256") -> None:
        """Replaces all keys by a new one."""
        self.keys.clear()
        self.jwks.clear()
        self.add_key(kid, algorithm)

    def document(self, path: str) -> object:
        if path == DISCOVERY:
            return {"issuer": self.url, "jwks_uri": self.url + JWKS, **self.discovery}
        return {"keys": self.jwks}

    def claims(self, **changes: object) -> dict[str, Any]:
        """Valid claims with changes; a claim that is None is left out."""
        now = int(time.time())
        claims = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": "service-7",
            "exp": now + 300,
            "iat": now,
            "nbf": now,
            "tenant": "acme",
            "scope": "runs:write runs:read openid",
            **changes,
        }
        return {name: value for name, value in claims.items() if value is not None}

    def token(
        self, kid: str = "first", *, header: dict[str, object] | None = None, algorithm: str = "", **changes: object
    ) -> str:
        """A token of the issuer, signed by one of its keys."""
        own, key = self.keys[kid]
        headers = {"kid": kid, **(header or {})}
        return sign(self.claims(**changes), key, algorithm or own, headers)


def sign(claims: dict[str, Any] | bytes, key: Any, algorithm: str, headers: dict[str, Any] | None = None) -> str:
    """Signs whatever claims and headers are: the library's `encode` refuses some that an attacker would send."""
    name = "EdDSA" if algorithm == "Ed448" else algorithm
    header = {"alg": name, "typ": "JWT", **(headers or {})}
    payload = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    signed = f"{encode({name: value for name, value in header.items() if value is not None})}.{encode(payload)}"
    return f"{signed}.{encode(jwt.get_algorithm_by_name(name).sign(signed.encode(), key))}"


def encode(part: object) -> str:
    """A part of a token: bytes, or an object as JSON."""
    data = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _handler(issuer: Issuer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            issuer.requests.append(self.path)
            time.sleep(issuer.delay_seconds)
            plain = (200, json.dumps(issuer.document(self.path)).encode(), {})
            status, body, headers = issuer.replies.get(self.path, plain)
            try:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            except OSError:
                pass  # the client did not wait

        def log_message(self, *_: object) -> None: ...

    return Handler


@contextmanager
def running_issuer() -> Iterator[Issuer]:
    """An issuer with one RSA key, `first`."""
    issuer = Issuer()
    try:
        yield issuer
    finally:
        issuer.stop()
