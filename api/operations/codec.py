"""`/codec/decode` and `/codec/encode`: Temporal's remote codec protocol, for the Temporal UI of administrators."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import Field

from sevenfold.adapters.encryption.remote_codec import InvalidPayloadError, RemoteCodec
from sevenfold.api.dependencies import component
from sevenfold.api.http.authorization import CODEC_PREFIX
from sevenfold.api.http.problem_docs import PROBLEMS
from sevenfold.api.http.problems import invalid_field
from sevenfold.api.http.strict_json import StrictJsonRoute
from sevenfold.contracts.payload import JsonObject, Payload

router = APIRouter(prefix=CODEC_PREFIX, tags=["administration"], route_class=StrictJsonRoute)

RemoteCodecDep = Annotated[RemoteCodec, Depends(component("remote_codec"))]

# The Temporal UI sends it. References to payloads in the store stay references either way.
PreserveStorageRefs = Annotated[bool, Query(alias="preserveStorageRefs")]


class Payloads(Payload):
    """Payloads as Temporal's JSON has them: `metadata` and `data`, their values in base64."""

    payloads: list[JsonObject] = Field(default=[], max_length=10_000)


@router.post("/decode", operation_id="decodePayloads", summary="Decrypt payloads", responses=PROBLEMS)
async def decode_payloads(body: Payloads, codec: RemoteCodecDep, _: PreserveStorageRefs = True) -> Payloads:
    """Decrypts payloads of histories. Those that need a key which this process lacks are returned as they are."""
    try:
        return Payloads(payloads=await codec.decode(body.payloads))
    except InvalidPayloadError as error:
        raise _not_a_payload(error) from None


@router.post("/encode", operation_id="encodePayloads", summary="Encrypt payloads", responses=PROBLEMS)
async def encode_payloads(body: Payloads, codec: RemoteCodecDep) -> Payloads:
    """Encrypts payloads for signals and starts from the Temporal UI. Without codec keys they stay as they are."""
    try:
        return Payloads(payloads=await codec.encode(body.payloads))
    except InvalidPayloadError as error:
        raise _not_a_payload(error) from None


def _not_a_payload(error: InvalidPayloadError) -> Exception:
    return invalid_field(f"/payloads/{error.index}", "is not a payload: metadata and data have values in base64")
