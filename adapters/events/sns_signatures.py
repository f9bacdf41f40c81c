"""Verifies what Amazon SNS sends over HTTP, and confirms subscriptions."""

import asyncio
import base64
import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import httpx
import structlog
from cachetools import TTLCache
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA1, SHA256, HashAlgorithm

from sevenfold.adapters.outbound.addresses import UnsafeUrlError
from sevenfold.adapters.outbound.bounded import TooLargeError, read_at_most
from sevenfold.contracts.events.sns import TOPIC_PATTERN, SnsMessage, SnsTopicConfig

log = structlog.get_logger(__name__)

# Version 1 is SNS's default. It is safe here: a forger needs a second preimage, not a collision.
_HASHES: Mapping[str, HashAlgorithm] = {"1": SHA1(), "2": SHA256()}  # noqa: S303

_HOST = re.compile(r"sns\.(?P<region>[a-z0-9-]{1,40})\.amazonaws\.com(\.cn)?")
_CERTIFICATE_PATH = re.compile(r"/SimpleNotificationService-[A-Za-z0-9]{1,64}\.pem")

# SNS tries for at most an hour by default, and for a day at the utmost.
_MAX_AGE = timedelta(days=1)
_MAX_AHEAD = timedelta(minutes=15)

_MAX_CERTIFICATE_BYTES = 100_000
_CACHE_SECONDS, _FAILED_SECONDS, _CACHED = 3_600.0, 30.0, 100
_MAX_FETCHES, _MAX_WAITING = 2, 20


class UntrustedMessageError(Exception):
    """The message is not one of a configured topic. The message states the reason."""


class SnsUnavailableError(Exception):
    """The certificate or the subscription could not be fetched now. SNS tries again."""


class SnsVerifier:
    """Knows the configured topics and the certificates of SNS. `http`: a guarded client.

    A certificate counts because AWS serves it over TLS at a host of SNS in the topic's region. Anybody may send a
    request that names such a URL, so at most two are fetched at a time, few wait, and a failure is remembered.
    """

    def __init__(self, topics: list[SnsTopicConfig], http: httpx.AsyncClient) -> None:
        self._topics = {topic.topic: topic for topic in topics}
        self._http = http
        self._keys: TTLCache[str, RSAPublicKey] = TTLCache(_CACHED, _CACHE_SECONDS)
        self._failed: TTLCache[str, str] = TTLCache(_CACHED, _FAILED_SECONDS)
        self._fetches = asyncio.Semaphore(_MAX_FETCHES)
        self._waiting = 0

    @property
    def has_topics(self) -> bool:
        """Whether any topic is configured."""
        return bool(self._topics)

    async def aclose(self) -> None:
        """Closes the client."""
        await self._http.aclose()

    async def verify(self, message: SnsMessage) -> SnsTopicConfig:
        """Returns the topic that sent the message. Raises UntrustedMessageError and SnsUnavailableError."""
        topic = self._topics.get(message.topic_arn)
        if topic is None:
            raise UntrustedMessageError("The topic is not configured. Add it to sevenfold.toml as [[sns]].")
        _check_age(message.timestamp)
        region = _find_region(topic.topic)
        if not _is_sns(message.signing_cert_url, region, _CERTIFICATE_PATH):
            raise UntrustedMessageError(f"SigningCertURL is not a certificate of SNS in {region}.")
        key = await self._load_key(message.signing_cert_url)
        try:
            signature = base64.b64decode(message.signature, validate=True)
            key.verify(signature, message.signed_text(), PKCS1v15(), _HASHES[message.signature_version])
        except (InvalidSignature, ValueError):  # ValueError: it is not base64.
            raise UntrustedMessageError("The signature is wrong.") from None
        return topic

    async def confirm(self, message: SnsMessage) -> None:
        """Confirms a subscription that was verified. Raises UntrustedMessageError and SnsUnavailableError."""
        url, region = message.subscribe_url or "", _find_region(message.topic_arn)
        if not _is_sns(url, region, re.compile(r"/?")):
            raise UntrustedMessageError(f"SubscribeURL is not one of SNS in {region}.")
        await self._get(url)
        log.info("confirmed a subscription of SNS", topic=message.topic_arn)

    async def _load_key(self, url: str) -> RSAPublicKey:
        if (reason := self._failed.get(url)) is not None:
            raise SnsUnavailableError(reason)
        if (known := self._keys.get(url)) is not None:
            return known
        try:
            key = x509.load_pem_x509_certificate(await self._get(url)).public_key()
        except (ValueError, SnsUnavailableError) as error:
            self._failed[url] = reason = f"The certificate of SNS could not be fetched: {error}"
            raise SnsUnavailableError(reason) from error
        if not isinstance(key, RSAPublicKey):
            raise UntrustedMessageError("The certificate has no RSA key.")
        self._keys[url] = key
        return key

    async def _get(self, url: str) -> bytes:
        if self._waiting >= _MAX_WAITING:
            raise SnsUnavailableError("Too many certificates are being fetched.")
        self._waiting += 1
        try:
            async with self._fetches, self._http.stream("GET", url) as response:
                if response.status_code != httpx.codes.OK:
                    raise SnsUnavailableError(f"SNS answered {response.status_code}.")
                return await read_at_most(response, _MAX_CERTIFICATE_BYTES)
        except (httpx.HTTPError, httpx.InvalidURL, UnsafeUrlError, TooLargeError) as error:
            raise SnsUnavailableError(f"{type(error).__name__}: {error}") from error
        finally:
            self._waiting -= 1


def _check_age(timestamp: str) -> None:
    try:
        age = datetime.now(UTC) - datetime.fromisoformat(timestamp)
    except (ValueError, TypeError):
        raise UntrustedMessageError("Timestamp is not a time with an offset.") from None
    if not -_MAX_AHEAD < age < _MAX_AGE:
        raise UntrustedMessageError(f"The message is of {timestamp}: older than a day, or from the future.")


def _find_region(topic: str) -> str:
    return topic.split(":")[3] if re.fullmatch(TOPIC_PATTERN, topic) else ""


def _is_sns(url: str, region: str, path: re.Pattern[str]) -> bool:
    """Whether it is a URL of SNS in the region, or of the endpoint that AWS's own variables name instead of it."""
    if not url.isascii() or not url.isprintable() or " " in url:
        return False  # `urlsplit` would drop some characters.
    try:
        parts = urlsplit(url)
        endpoint = urlsplit(os.environ.get("AWS_ENDPOINT_URL_SNS") or os.environ.get("AWS_ENDPOINT_URL") or "")
        if parts.netloc and (parts.scheme, parts.netloc) == (endpoint.scheme, endpoint.netloc):
            return True
    except ValueError:
        return False
    host = _HOST.fullmatch(parts.netloc)
    is_host = parts.scheme == "https" and host is not None and host["region"] == region
    return is_host and path.fullmatch(parts.path) is not None
