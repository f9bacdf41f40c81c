"""The suite of the payload codec: `/query` with codec keys beside `/query` without, and large payloads."""

import base64
import os
import random
import statistics
import time
from pathlib import Path

from temporalio.api.common.v1 import Payload

from bench.sevenfold import Ports, Sevenfold, run_sevenfold
from bench.suite import Aim, Suite
from sevenfold.adapters.encryption.key_ring import KeyRing
from sevenfold.adapters.encryption.payload_codec import EncryptionCodec

SMALL, LARGE = 256, 5_000_000
CALLS, LARGE_CALLS, WARM_UP = 400, 10, 30

TIMES = " \N{MULTIPLICATION SIGN}"


async def _codec(sevenfold: Sevenfold, work: Path) -> list[float]:
    key = f"bench:{base64.b64encode(os.urandom(32)).decode()}"
    data = work / f"codec-{random.randrange(10**9)}"
    async with run_sevenfold(work, data, Ports.free(), {"SEVENFOLD_CODEC_KEYS": key}) as encrypted:
        clear, sealed = await _in_turn(_body(SMALL), CALLS, sevenfold, encrypted)
        clear_large, sealed_large = await _in_turn(_body(LARGE), LARGE_CALLS, sevenfold, encrypted)
    encode, decode = await _throughput()
    small = [statistics.median(clear), statistics.median(sealed)]
    large = [statistics.median(clear_large), statistics.median(sealed_large)]
    return [small[1] / small[0], *small, encode, decode, *large]


def _body(size: int) -> bytes:
    return b'{"query": "%b"}' % (b"x" * size)


async def _in_turn(body: bytes, calls: int, *servers: Sevenfold) -> list[list[float]]:
    """The times in ms of each server, asked in turn, so that whatever the machine does meets both."""
    times: list[list[float]] = [[] for _ in servers]
    warm_up = min(calls, WARM_UP)
    for number in range(calls + warm_up):
        pairs = list(zip(servers, times, strict=True))
        for server, own in pairs if number % 2 else reversed(pairs):
            started_at = time.perf_counter()
            answer = await server.http_client.post("/api/agent/query", body)
            if answer.get("response") != "ok":
                raise RuntimeError(f"Sevenfold answered {str(answer)[:500]}")
            if number >= warm_up:
                own.append((time.perf_counter() - started_at) * 1000)
    return times


async def _throughput() -> tuple[float, float]:
    """MB a second that the codec encrypts and decrypts, in payloads of 5 MB."""
    codec = EncryptionCodec(KeyRing({"bench": os.urandom(32)}))
    payload = Payload(metadata={"encoding": b"json/plain"}, data=os.urandom(LARGE))
    encode, decode = [], []
    for _ in range(20):
        started_at = time.perf_counter()
        encrypted = await codec.encode([payload])
        encode.append(time.perf_counter() - started_at)
        started_at = time.perf_counter()
        await codec.decode(encrypted)
        decode.append(time.perf_counter() - started_at)
    return LARGE / 1e6 / statistics.median(encode), LARGE / 1e6 / statistics.median(decode)


CODEC = Suite(
    "codec",
    [
        Aim(f"`/query` of {SMALL} bytes with codec keys against none, p50", TIMES, 1.05, digits=3),
        Aim(f"p50 of `/query` of {SMALL} bytes without codec keys", " ms", digits=2),
        Aim(f"p50 of `/query` of {SMALL} bytes with codec keys", " ms", digits=2),
        Aim("encryption of payloads of 5 MB", " MB/s"),
        Aim("decryption of payloads of 5 MB", " MB/s"),
        Aim("p50 of `/query` of 5 MB without codec keys", " ms"),
        Aim("p50 of `/query` of 5 MB with codec keys", " ms"),
    ],
    _codec,
)
