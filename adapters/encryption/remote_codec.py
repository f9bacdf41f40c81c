"""Temporal's remote codec protocol: payloads as JSON, for the Temporal UI and CLI."""

from collections.abc import Sequence
from typing import Any

from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from temporalio.api.common.v1 import Payload

from sevenfold.adapters.encryption.key_ring import DecryptionError
from sevenfold.adapters.encryption.payload_codec import EncryptionCodec


class InvalidPayloadError(Exception):
    """One of the payloads has not the form of the protocol; `index` is its place."""

    def __init__(self, index: int) -> None:
        super().__init__(index)
        self.index = index


class RemoteCodec:
    """Encodes and decodes JSON payloads as the process's own codec does."""

    def __init__(self, codec: EncryptionCodec) -> None:
        self._codec = codec

    async def encode(self, payloads: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Returns the encrypted payloads. Raises InvalidPayloadError."""
        return [MessageToDict(one) for one in await self._codec.encode(_parse(payloads))]

    async def decode(self, payloads: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Returns the decrypted payloads; those of a key that is missing here stay encrypted, so that the others are
        shown. Raises InvalidPayloadError.
        """
        return [MessageToDict(await self._decode(one)) for one in _parse(payloads)]

    async def _decode(self, payload: Payload) -> Payload:
        try:
            return (await self._codec.decode([payload]))[0]
        except DecryptionError:
            return payload


def _parse(payloads: Sequence[dict[str, Any]]) -> list[Payload]:
    parsed = []
    for index, payload in enumerate(payloads):
        try:
            parsed.append(ParseDict(payload, Payload(), ignore_unknown_fields=True))
        except ParseError:
            raise InvalidPayloadError(index) from None
    return parsed
