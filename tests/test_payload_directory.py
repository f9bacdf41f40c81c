"""Payloads in a directory."""

import os
import time
from datetime import timedelta
from pathlib import Path

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.converter import StorageDriverClaim, StorageDriverRetrieveContext, StorageDriverStoreContext

from sevenfold.adapters.payloads.directory import PayloadDirectory
from sevenfold.adapters.payloads.stores import lost_payload


async def test_equal_payloads_are_stored_once_and_read_back_unchanged(tmp_path: Path) -> None:
    directory = PayloadDirectory(tmp_path)
    payloads = [Payload(data=b"x" * 300_000, metadata={"encoding": b"json/plain"}), Payload(data=b"y")]
    claims = await directory.store(StorageDriverStoreContext(), [*payloads, payloads[0]])
    assert claims[0] == claims[2]
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 2
    assert await directory.retrieve(StorageDriverRetrieveContext(), claims[:2]) == payloads


@pytest.mark.parametrize("digest", ["", "../../etc/passwd", "A" * 64, "0" * 63, "0" * 64 + "/x", "../x"])
async def test_claim_never_leads_out_of_the_directory(tmp_path: Path, digest: str) -> None:
    (tmp_path / "x").write_bytes(Payload(data=b"secret").SerializeToString())
    claim = StorageDriverClaim(claim_data={"sha256": digest})
    found = await PayloadDirectory(tmp_path / "payloads").retrieve(StorageDriverRetrieveContext(), [claim])
    assert found == [lost_payload(digest)]


async def test_payload_changed_on_disk_is_reported_as_lost(tmp_path: Path) -> None:
    directory = PayloadDirectory(tmp_path)
    claims = await directory.store(StorageDriverStoreContext(), [Payload(data=b"x")])
    next(path for path in tmp_path.rglob("*") if path.is_file()).write_bytes(b"z")
    digest = claims[0].claim_data["sha256"]
    assert await directory.retrieve(StorageDriverRetrieveContext(), claims) == [lost_payload(digest)]


async def test_payload_stored_again_outlives_the_cleanup(tmp_path: Path) -> None:
    directory = PayloadDirectory(tmp_path)
    payloads = [Payload(data=data) for data in (b"old", b"young", b"old but stored again")]
    claims = await directory.store(StorageDriverStoreContext(), payloads)
    a_while_ago = time.time() - 1000
    for path in tmp_path.rglob("*/*"):
        if b"young" not in path.read_bytes():
            os.utime(path, (a_while_ago, a_while_ago))
    await directory.store(StorageDriverStoreContext(), payloads[2:])
    assert await directory.remove_older_than(timedelta(seconds=500), "default") == 1
    assert await directory.retrieve(StorageDriverRetrieveContext(), claims[1:]) == payloads[1:]
    removed = claims[0].claim_data["sha256"]
    assert await directory.retrieve(StorageDriverRetrieveContext(), claims[:1]) == [lost_payload(removed)]
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 2
