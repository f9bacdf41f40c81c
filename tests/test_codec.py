"""The payload codec by itself: keys, form, contexts, failures."""

import base64
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from temporalio.api.common.v1 import Payload
from temporalio.api.failure.v1 import Failure
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.converter import DataConverter, WorkflowSerializationContext
from temporalio.exceptions import ApplicationError, FailureError

from sevenfold.adapters.encryption.failure_converter import EncodedFailureConverter
from sevenfold.adapters.encryption.key_ring import DecryptionError, KeyRing
from sevenfold.adapters.encryption.payload_codec import EncryptionCodec
from sevenfold.adapters.payloads.directory import THRESHOLD_BYTES
from sevenfold.adapters.streams.redis.batch_cipher import BatchCipher
from sevenfold.contracts.identity import child_workflow_id
from sevenfold.contracts.runs.streams import segment_workflow_id
from sevenfold.runtime.secrets.codec_keys import load_key_ring
from sevenfold.runtime.startup import StartupError
from tests.support.codec_keys import key_setting, new_key, ring_of
from tests.support.stack import make_settings

NEW, OLD = new_key("new"), new_key("old")


def text_payload(text: str) -> Payload:
    return pydantic_data_converter.payload_converter.to_payload(text)


def in_workflow(workflow_id: str) -> WorkflowSerializationContext:
    return WorkflowSerializationContext(namespace="default", workflow_id=workflow_id)


async def test_payload_is_encrypted_with_the_first_key() -> None:
    payload = text_payload("a secret")
    (encrypted,) = await EncryptionCodec(ring_of(NEW, OLD)).encode([payload])
    assert encrypted.metadata == {"encoding": b"binary/encrypted", "encryption-key-id": b"new"}
    assert b"secret" not in encrypted.SerializeToString()
    assert await EncryptionCodec(ring_of(OLD, NEW)).decode([encrypted]) == [payload]


async def test_form_is_that_of_temporals_samples() -> None:
    """A worker of another language decrypts with the codec of Temporal's encryption samples."""
    (encrypted,) = await EncryptionCodec(ring_of(NEW)).encode([text_payload("a secret")])
    cipher = AESGCM(base64.b64decode(NEW.partition(":")[2]))
    plain = cipher.decrypt(encrypted.data[:12], encrypted.data[12:], None)
    assert Payload.FromString(plain) == text_payload("a secret")


async def test_same_payload_looks_different_unless_it_goes_to_the_store() -> None:
    codec = EncryptionCodec(ring_of(NEW))
    small, large = text_payload("yes"), text_payload("x" * THRESHOLD_BYTES)
    assert await codec.encode([small]) != await codec.encode([small])
    assert await codec.encode([large]) == await codec.encode([large]), "a heartbeat would store it again and again"
    assert await codec.decode(await codec.encode([large])) == [large]


async def test_null_stays_the_null_that_removes_a_memo() -> None:
    null = pydantic_data_converter.payload_converter.to_payload(None)
    assert await EncryptionCodec(ring_of(NEW)).encode([null]) == [null]


async def test_clear_payload_of_an_older_run_is_read() -> None:
    payload = text_payload("from before there were keys")
    assert await EncryptionCodec(ring_of(NEW)).decode([payload]) == [payload]


@pytest.mark.parametrize("ring", [ring_of(), ring_of(OLD), ring_of(new_key("new"))])
async def test_payload_of_another_key_is_reported(ring: KeyRing) -> None:
    encrypted = await EncryptionCodec(ring_of(NEW)).encode([text_payload("a secret")])
    with pytest.raises(DecryptionError, match="codec key new") as raised:
        await EncryptionCodec(ring).decode(encrypted)
    assert NEW.partition(":")[2] not in str(raised.value)


@pytest.mark.parametrize("broken", [b"", b"short", bytes(40)])
async def test_damaged_payload_is_reported(broken: bytes) -> None:
    (encrypted,) = await EncryptionCodec(ring_of(NEW)).encode([text_payload("a secret")])
    encrypted.data = broken
    with pytest.raises(DecryptionError):
        await EncryptionCodec(ring_of(NEW)).decode([encrypted])


async def test_only_children_without_our_keys_get_clear_payloads() -> None:
    codec, payload = EncryptionCodec(ring_of(NEW)), text_payload("a secret")
    run = "acme:qry_aaaaaaaaaaaaaaaaaaaaaaaaaa"
    clear = child_workflow_id(run, 12, uses_codec=False)
    assert await codec.with_context(in_workflow(clear)).encode([payload]) == [payload]
    for workflow_id in (run, child_workflow_id(run, 12, uses_codec=True), segment_workflow_id(run, 2), "limits:1"):
        assert await codec.with_context(in_workflow(workflow_id)).encode([payload]) != [payload]


async def test_failure_is_encoded_with_all_its_causes() -> None:
    """A cause that the server or a clear workflow made is copied by the SDK as it is."""
    converter = DataConverter(
        payload_codec=EncryptionCodec(ring_of(NEW)), failure_converter_class=EncodedFailureConverter
    )
    clear = Failure()
    DataConverter.default.failure_converter.to_failure(
        ApplicationError("a secret cause"), DataConverter.default.payload_converter, clear
    )
    error = ApplicationError("a secret", {"detail": "a secret too"}, type="Own")
    error.__cause__ = await DataConverter.default.decode_failure(clear)
    failure = Failure()
    await converter.encode_failure(error, failure)
    assert b"secret" not in failure.SerializeToString()
    read = await converter.decode_failure(failure)
    assert isinstance(read, ApplicationError)
    assert (read.message, read.details, read.type) == ("a secret", ({"detail": "a secret too"},), "Own")
    assert isinstance(read.cause, FailureError)
    assert read.cause.message == "a secret cause"


def test_first_key_encrypts(tmp_path: Path) -> None:
    ring = load_key_ring(make_settings(tmp_path, codec_keys=key_setting(NEW, f" {OLD}")))
    assert ring.first_id == "new"
    assert "old" in ring


@pytest.mark.parametrize("value", [None, "", " "])
def test_without_keys_nothing_is_encrypted(tmp_path: Path, value: str | None) -> None:
    assert not load_key_ring(make_settings(tmp_path, codec_keys=value))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("c2VjcmV0", "key 1 of 1 has no id"),
        (f"{NEW},", "key 2 of 2 has no id"),
        (f"{NEW},:c2VjcmV0", "key 2 of 2 has no id"),
        ("an id:c2VjcmV0", "key 1 of 1 has no id"),
        ("new:c2VjcmV0", "key 1 of 1 is not the base64 of 32 bytes"),
        ("new:c2VjcmV0!", "key 1 of 1 is not the base64 of 32 bytes"),
        (f"{NEW},{new_key('new')}", "key 2 of 2 has the id of an earlier one"),
    ],
    ids=["no id", "empty second", "empty id", "blank in id", "short", "not base64", "twice"],
)
def test_malformed_keys_are_refused_and_not_shown(tmp_path: Path, value: str, message: str) -> None:
    with pytest.raises(StartupError, match=message) as raised:
        load_key_ring(make_settings(tmp_path, codec_keys=value))
    assert "c2VjcmV0" not in str(raised.value)
    assert NEW.partition(":")[2] not in str(raised.value)


@pytest.mark.parametrize("ring", [ring_of(), ring_of(NEW)])
def test_batch_in_redis_is_read_in_its_own_stream_only(ring: KeyRing) -> None:
    value = BatchCipher(ring_of(NEW, OLD)).encrypt("one", b'{"chunk":"a secret"}')
    assert b"secret" not in value
    assert BatchCipher(ring_of(OLD, NEW)).decrypt("one", value) == b'{"chunk":"a secret"}'
    with pytest.raises(DecryptionError):
        BatchCipher(ring).decrypt("another", value)
    with pytest.raises(DecryptionError):
        BatchCipher(ring).decrypt("one", value[:3])


def test_clear_batch_in_redis_is_read() -> None:
    value = BatchCipher(ring_of()).encrypt("one", b'{"chunk":"a"}')
    assert value == BatchCipher(ring_of(NEW)).decrypt("one", value) == b'{"chunk":"a"}'
