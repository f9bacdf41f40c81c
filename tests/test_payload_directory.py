"""Payloads in a directory."""

import os
import time
from datetime import timedelta
from pathlib import Path

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.converter import (
    StorageDriverClaim,
    StorageDriverRetrieveContext,
    StorageDriverStoreContext,
    StorageDriverWorkflowInfo,
)

from sevenfold.adapters.payloads.directory import PayloadDirectory
from sevenfold.adapters.payloads.stores import PayloadOwner, lost_payload
from tests.support.stack import Stack


def of(workflow_id: str) -> StorageDriverStoreContext:
    """The context of a payload for this workflow."""
    return StorageDriverStoreContext(StorageDriverWorkflowInfo(namespace="default", id=workflow_id))


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


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


async def test_each_tenant_has_a_folder_of_its_own(tmp_path: Path) -> None:
    """Equal payloads of two tenants are two files, and the removal of one leaves the other."""
    directory = PayloadDirectory(tmp_path)
    payload = Payload(data=b"x" * 1_000)
    (acme,) = await directory.store(of("acme:qry_1"), [payload])
    (child,) = await directory.store(of("acme:qry_1/2"), [payload])
    (globex,) = await directory.store(of("globex:qry_1"), [payload])
    (nobody,) = await directory.store(of("circuit:agent"), [payload])
    assert acme == child
    digest = acme.claim_data["sha256"]
    found = {str(path.parent.parent.relative_to(tmp_path)) for path in files(tmp_path)}
    assert found == {"tenants/acme", "tenants/globex", "."}
    assert await directory.remove_tenant("acme", "default") == 1
    read = await directory.retrieve(StorageDriverRetrieveContext(), [acme, globex, nobody])
    assert read == [lost_payload(digest), payload, payload]
    assert await directory.remove_tenant("acme", "default") == 0
    assert await directory.store(of("acme:qry_1"), [payload]) == [acme]


async def test_each_key_has_a_folder_below_its_tenant_s(tmp_path: Path) -> None:
    keys = {"acme:qry_1": "4k2v9q0c8x1m", "acme:qry_2": "000000000000"}
    directory = PayloadDirectory(tmp_path, keys.get)
    payload = Payload(data=b"x" * 1_000)
    first, second, without = [(await directory.store(of(f"acme:qry_{n}"), [payload]))[0] for n in (1, 2, 3)]
    size = len(payload.SerializeToString())
    for owner, expected in (
        (PayloadOwner("acme", "4k2v9q0c8x1m"), size),
        (PayloadOwner("acme", "111111111111"), 0),
        (PayloadOwner("acme"), 3 * size),
    ):
        assert await directory.measure(owner, "default") == expected
    # Whoever reads needs no key: another process may have stored it.
    elsewhere = PayloadDirectory(tmp_path)
    assert await elsewhere.retrieve(StorageDriverRetrieveContext(), [first, second, without]) == [payload] * 3
    for forged in ("../..", "4k2v9q0c8x1m/../000000000000", "4K2V", ""):
        claim = StorageDriverClaim(claim_data={**first.claim_data, "key": forged})
        found = await elsewhere.retrieve(StorageDriverRetrieveContext(), [claim])
        assert found == [lost_payload(first.claim_data["sha256"])], forged
    os.utime(next((tmp_path / "tenants/acme/keys/000000000000").rglob("??/*")), (1, 1))
    assert await directory.remove_older_than(timedelta(seconds=500), "default") == 1
    assert await directory.remove_tenant("acme", "default") == 2
    assert files(tmp_path) == []
    assert not (tmp_path / "tenants/acme").exists()


async def test_claim_of_one_tenant_does_not_find_the_file_of_another(tmp_path: Path) -> None:
    directory = PayloadDirectory(tmp_path)
    (claim,) = await directory.store(of("acme:qry_1"), [Payload(data=b"secret")])
    digest = claim.claim_data["sha256"]
    for forged in ({}, {"tenant": "globex"}, {"tenant": "../tenants/acme"}, {"tenant": ""}, {"tenant": "acme/"}):
        other = StorageDriverClaim(claim_data={"sha256": digest, **forged})
        assert await directory.retrieve(StorageDriverRetrieveContext(), [other]) == [lost_payload(digest)]


async def test_expired_payloads_of_all_tenants_are_removed(tmp_path: Path) -> None:
    directory = PayloadDirectory(tmp_path)
    # Its folder has the length of the two characters that begin a digest.
    for workflow in ("acme:qry_1", "ab:qry_1", "circuit:x"):
        await directory.store(of(workflow), [Payload(data=b"old")])
    for path in files(tmp_path):
        os.utime(path, (1, 1))
    (young,) = await directory.store(of("ab:qry_1"), [Payload(data=b"young")])
    assert await directory.remove_older_than(timedelta(seconds=500), "default") == 3
    assert [path.name for path in files(tmp_path)] == [young.claim_data["sha256"]]


async def test_all_payloads_of_a_run_are_in_its_tenant_s_folder(stack: Stack) -> None:
    """Its input and result, and what its activities send with their heartbeats or encode themselves."""
    root = stack.settings.data_dir / "payloads"
    before = set(files(root))
    items = [f"{number} " + "x" * 100_000 for number in range(8)]
    job = {"task": "work", "agent": "item", "data": {"items": items}, "concurrency": 2}
    answer = await stack.http.post("/api/agent/jobs", json=job)
    assert answer.status_code == 202, answer.text
    await stack.run_until(answer.json()["jobId"], "completed")
    slow = {"params": {"seconds": 1}, "context": {"note": "y" * 400_000}}
    assert (await stack.query("careful", agent="careful", **slow)).status_code == 200
    stored = set(files(root)) - before
    assert len(stored) >= 3
    assert {path.parent.parent for path in stored} == {root / "tenants" / "default"}
