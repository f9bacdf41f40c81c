"""Large payloads in a bucket, against moto's S3 server: real HTTP, Temporal's own driver, the whole product."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.converter import StorageDriverRetrieveContext, StorageDriverStoreContext, StorageDriverWorkflowInfo

from sevenfold.adapters.payloads.s3 import open_bucket
from sevenfold.adapters.payloads.stores import PayloadOwner
from sevenfold.runtime.config.settings import Settings
from sevenfold.runtime.startup import StartupError
from sevenfold.runtime.temporal.payloads import open_storage
from tests.support.moto_server import BUCKET, S3, found_by_aws, moto
from tests.support.stack import ROOT, Stack, environment, make_settings, running_stack
from tests.test_startup import refused

LARGE = "x" * 1_000_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with moto(tmp_path_factory.mktemp("moto")) as s3:
        yield s3


@pytest.fixture
def s3(server: S3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> S3:
    """An empty bucket, and the environment in which AWS's libraries find it; nothing of this machine's is read."""
    server.store_as_of(0)
    server.http.post("/moto-api/reset").raise_for_status()
    server.http.put(f"/{BUCKET}").raise_for_status()
    found_by_aws(server, monkeypatch, tmp_path)
    return server


def files(stack: Stack) -> list[Path]:
    return [path for path in (stack.settings.data_dir / "payloads").rglob("*") if path.is_file()]


# The API's limit is 10 MB; from 8 MB on an object is uploaded in parts.
@pytest.mark.parametrize("size", [1_000_000, 9_900_000])
async def test_large_query_is_answered_and_stored_in_the_bucket(tmp_path: Path, s3: S3, size: int) -> None:
    async with running_stack(tmp_path, payloads_s3_bucket=BUCKET) as stack:
        assert s3.stored() == []
        small = await stack.query("small", agent="echo")
        assert small.status_code == 200
        assert s3.stored() == [], "what fits into the history stays there"
        answer = await stack.query("x" * size, agent="echo")
        assert answer.status_code == 200, answer.text
        assert answer.json()["response"] == "x" * size
        assert any(answer.json()["queryId"] in key for key in s3.stored())
        assert files(stack) == []
        history = await stack.temporal.get_workflow_handle(f"default:{answer.json()['queryId']}").fetch_history()
        assert len(history.to_json()) < 100_000


async def test_payloads_of_the_directory_are_read_after_switching_to_s3(tmp_path: Path, s3: S3) -> None:
    async with running_stack(tmp_path) as stack:
        ended = (await stack.query(LARGE, agent="echo")).json()["queryId"]
        params = {"agent": "careful", "params": {"seconds": 3}, "headers": {"Prefer": "respond-async"}}
        running = (await stack.query(LARGE, **params)).json()["queryId"]  # type: ignore[arg-type]
        assert files(stack)
        assert s3.stored() == []
    async with running_stack(tmp_path, payloads_s3_bucket=BUCKET) as stack:
        run = await stack.run(ended)
        assert isinstance(run["result"], dict)
        assert run["result"]["response"] == LARGE
        assert (await stack.run_until(running, "completed"))["id"] == running
        before = files(stack)
        assert (await stack.query(LARGE, agent="echo")).json()["response"] == LARGE
        assert s3.stored()
        assert files(stack) == before


async def test_cleanup_schedule_removes_expired_objects_only(tmp_path: Path, s3: S3) -> None:
    async with running_stack(tmp_path, payloads_s3_bucket=BUCKET, retention_days=1) as stack:
        digest = f"d/sha256/{'0' * 64}"
        s3.store_as_of(3.1)
        await stack.query("e" * 1_000_000, agent="echo")
        expired = s3.stored()
        foreign = [
            s3.put(key)
            for key in (
                f"v0/ns/default/wt/SomebodyElses/wi/w/ri/r/{digest}",
                f"v0/ns/other/wt/SynchronousRequest/wi/w/ri/r/{digest}",
                "v0/ns/default/wt/SynchronousRequest/notes.txt",
                f"backup/v0/ns/default/wt/SynchronousRequest/wi/w/ri/r/{digest}",
            )
        ]
        s3.store_as_of(2.9)
        young = (await stack.query("y" * 1_000_000, agent="echo")).json()["queryId"]
        kept = {key for key in s3.stored() if key not in expired}
        assert expired
        await stack.temporal.get_schedule_handle("schedule:sevenfold:PayloadCleanup").trigger()
        async with asyncio.timeout(20):
            while set(s3.stored()) & set(expired):
                await asyncio.sleep(0.1)
        assert set(s3.stored()) == kept
        assert kept >= set(foreign)
        run = await stack.run(young)
        assert isinstance(run["result"], dict)
        assert run["result"]["response"] == "y" * 1_000_000


async def test_removal_of_a_tenant_leaves_the_objects_of_others(s3: S3) -> None:
    def of(workflow_id: str, workflow_type: str | None = "SynchronousRequest") -> StorageDriverStoreContext:
        target = StorageDriverWorkflowInfo(namespace="default", id=workflow_id, run_id="r", type=workflow_type)
        return StorageDriverStoreContext(target)

    payloads = [Payload(data=b"x" * 1_000)]
    async with open_bucket(BUCKET) as driver:
        kept = [
            (await driver.store(context, payloads))[0]
            for context in (of("acme-2:qry_1"), of("globex:qry_1"), of("acme", "SomebodyElses"))
        ]
        for context in (of("acme:qry_1"), of("acme:evt_1", "EventDriven"), of("acme:order:1", None)):
            await driver.store(context, payloads)
        assert await driver.remove_tenant("acme", "other") == 0
        assert await driver.remove_tenant("acme", "default") == 3
        assert await driver.retrieve(StorageDriverRetrieveContext(), kept) == payloads * 3
    assert len(s3.stored()) == 3


async def test_objects_of_a_key_are_below_its_tenant_s(s3: S3) -> None:
    def of(number: int) -> StorageDriverStoreContext:
        target = StorageDriverWorkflowInfo(
            namespace="default", id=f"acme:qry_{number}", run_id="r", type="SynchronousRequest"
        )
        return StorageDriverStoreContext(target)

    payloads = [Payload(data=b"x" * 1_000)]
    size = len(payloads[0].SerializeToString())
    async with open_bucket(BUCKET, {"acme:qry_1": "4k2v9q0c8x1m"}.get) as driver:
        (claim,) = await driver.store(of(1), payloads)
        await driver.store(of(2), payloads)
        assert await driver.measure(PayloadOwner("acme", "4k2v9q0c8x1m"), "default") == size
        assert await driver.measure(PayloadOwner("acme"), "default") == 2 * size
    async with open_bucket(BUCKET) as elsewhere:
        assert await elsewhere.retrieve(StorageDriverRetrieveContext(), [claim]) == payloads
        assert await elsewhere.remove_tenant("acme", "default") == 2


async def test_bucket_outage_fails_only_what_needs_the_bucket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with moto(tmp_path) as s3:
        found_by_aws(s3, monkeypatch, tmp_path)
        s3.http.put(f"/{BUCKET}").raise_for_status()
        async with running_stack(tmp_path, payloads_s3_bucket=BUCKET) as stack:
            known = (await stack.query(LARGE, agent="echo")).json()["queryId"]
            s3.process.kill()
            s3.process.wait(10)
            for answer in (
                await stack.query(LARGE, agent="echo"),
                await stack.http.get(f"/api/agent/runs/{known}"),
            ):
                assert answer.status_code == 503, answer.text
                assert answer.json()["type"] == "/problems/storage-unavailable"
                assert int(answer.headers["Retry-After"]) > 0
                assert BUCKET not in answer.text
            small = await stack.query("small", agent="echo")
            assert small.status_code == 200, "what fits into a history does not need the bucket"


async def test_payload_stored_again_gets_a_new_lifetime(s3: S3) -> None:
    # Its age counts from the last write; versions show the writes.
    s3.http.put(
        f"/{BUCKET}?versioning",
        content='<VersioningConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Status>Enabled</Status>'
        "</VersioningConfiguration>",
    ).raise_for_status()
    payload = Payload(data=b"x" * 300_000)
    claims = []
    for fresh, writes in ((timedelta(hours=1), 1), (timedelta(hours=1), 1), (timedelta(0), 2)):
        async with open_bucket(BUCKET, renew_after=fresh) as driver:
            claims += await driver.store(StorageDriverStoreContext(), [payload])
            assert await driver.retrieve(StorageDriverRetrieveContext(), claims[:1]) == [payload]
        assert s3.http.get(f"/{BUCKET}?versions").text.count("<Version>") == writes
    assert claims[0] == claims[1] == claims[2]


async def why(settings: Settings) -> str:
    """The reason for which there is no storage."""
    with pytest.raises(StartupError) as message:
        async with open_storage(settings):
            raise AssertionError("it was opened")
    return str(message.value)


@pytest.mark.parametrize("command", ["worker", "api", "dev"])
@pytest.mark.usefixtures("s3")
def test_process_does_not_start_without_its_bucket(tmp_path: Path, command: str) -> None:
    message = refused(command, environment(make_settings(tmp_path, payloads_s3_bucket="no-such-bucket")), tmp_path)
    assert "SEVENFOLD_PAYLOADS_S3_BUCKET=no-such-bucket" in message
    assert "no such bucket" in message


async def test_bucket_without_permission_is_explained(tmp_path: Path, s3: S3) -> None:
    s3.http.post("/moto-api/reset-auth", content=b"0").raise_for_status()  # from now on keys are looked at
    try:
        message = await why(make_settings(tmp_path, payloads_s3_bucket=BUCKET))
    finally:
        s3.http.post("/moto-api/reset-auth", content=b"inf").raise_for_status()
    assert f"SEVENFOLD_PAYLOADS_S3_BUCKET={BUCKET}" in message
    assert "access is denied" in message


@pytest.mark.usefixtures("s3")
@pytest.mark.parametrize(
    ("bucket", "variable", "value", "expected"),
    [
        (BUCKET, "AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9", "Could not connect"),
        (BUCKET, "AWS_ENDPOINT_URL_S3", "nowhere", "nowhere"),
        (BUCKET, "AWS_ACCESS_KEY_ID", None, "credentials"),
        (BUCKET, "AWS_PROFILE", "no-such-profile", "no-such-profile"),
        ("Not/A/Bucket", "AWS_REGION", "eu-central-1", "Invalid bucket name"),
    ],
)
async def test_unreachable_bucket_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bucket: str, variable: str, value: str | None, expected: str
) -> None:
    if value is None:
        monkeypatch.delenv(variable)
    else:
        monkeypatch.setenv(variable, value)
    message = await why(make_settings(tmp_path, payloads_s3_bucket=bucket))
    assert f"SEVENFOLD_PAYLOADS_S3_BUCKET={bucket}" in message
    assert expected in message


def test_empty_bucket_name_is_refused(tmp_path: Path) -> None:
    environ = {**environment(make_settings(tmp_path)), "SEVENFOLD_PAYLOADS_S3_BUCKET": ""}
    assert "SEVENFOLD_PAYLOADS_S3_BUCKET" in refused("worker", environ, tmp_path)


def test_missing_s3_extra_names_what_to_install(tmp_path: Path) -> None:
    # As if the package were not there.
    (tmp_path / "aioboto3.py").write_text("raise ModuleNotFoundError(\"No module named 'aioboto3'\")")
    environ = environment(make_settings(tmp_path, payloads_s3_bucket=BUCKET))
    message = refused("worker", {**environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}, tmp_path, imports_anew=True)
    assert "temporalio[aioboto3]" in message
    assert "SEVENFOLD_PAYLOADS_S3_BUCKET" in message


def test_without_a_bucket_no_aws_library_is_imported(tmp_path: Path) -> None:
    look = (
        "import asyncio, sys, sevenfold.cli.servers, tests.support.stack as t, pathlib\n"
        "from sevenfold.runtime.temporal.payloads import open_storage\n"
        "async def look():\n"
        "    async with open_storage(t.make_settings(pathlib.Path('.'))): pass\n"
        "asyncio.run(look())\n"
        "print([name for name in sys.modules if 'boto' in name or name == 'aiohttp'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", look],
        env=environment(make_settings(tmp_path)),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.strip() == "[]", done.stderr
