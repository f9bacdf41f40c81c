"""Ids and preferences: the small rules that everything else leans on."""

from hypothesis import given
from hypothesis import strategies as st

from sevenfold.api.http.prefer import DEFAULT_WAIT, parse_prefer
from sevenfold.contracts.agents.errors import AgentError, AgentFailed, ErrorCode
from sevenfold.contracts.identity import build_workflow_id, derive_id, is_public_id, new_id, parse_public_id
from sevenfold.contracts.runs.outcomes import processing_time
from sevenfold.contracts.runs.streams import EntryKind, StreamEntry


def test_new_ids_are_valid_and_unique() -> None:
    ids = {new_id("qry") for _ in range(1000)}
    assert len(ids) == 1000
    assert all(is_public_id(one) for one in ids)


@given(st.text(), st.text(), st.text())
def test_a_keyed_id_is_always_the_same_and_belongs_to_tenant_route_and_key(tenant: str, route: str, key: str) -> None:
    one = derive_id("qry", tenant, route, key)
    assert is_public_id(one)
    assert one == derive_id("qry", tenant, route, key)
    assert one != derive_id("qry", tenant + "x", route, key)
    assert one != derive_id("qry", tenant, route + "x", key)
    assert one != derive_id("qry", tenant, route, key + "x")
    assert parse_public_id(build_workflow_id(tenant, one)) == one


def test_a_keyed_id_never_changes_between_releases() -> None:
    # It is the idempotency of every run that was started before a deployment.
    assert derive_id("qry", "default", "synchronous", "key") == "qry_44qjjpbifowiabrckdla27jaca"


@given(st.text())
def test_malformed_id_is_refused(text: str) -> None:
    assert not is_public_id(text)


def test_prefer_header_is_parsed() -> None:
    assert parse_prefer(None).seconds == DEFAULT_WAIT
    assert parse_prefer("wait=5").seconds == 5
    assert parse_prefer('foo, wait="7"; x=y').seconds == 7
    assert parse_prefer("wait=999").seconds == 60
    assert parse_prefer("wait=999").applied == "wait=60"
    assert parse_prefer("respond-async").seconds == 0
    assert parse_prefer("respond-async, wait=10").seconds == 10, "RFC 7240: asynchronous after that time"


def test_durations_are_worded_as_in_the_article() -> None:
    assert [processing_time(seconds) for seconds in (2.3, 0.017, 0, 61.04)] == ["2.3s", "0.017s", "0.000s", "61.0s"]


def test_every_error_code_of_a_call_has_one_exception_class() -> None:
    # Other tests load agents with errors of their own.
    kinds = [*AgentError.__subclasses__(), *AgentFailed.__subclasses__()]
    codes = [kind.code for kind in kinds if kind.__module__.startswith("sevenfold.")]
    assert len(set(codes)) == len(codes)
    final = {ErrorCode.AGENT_REJECTED, ErrorCode.DOCUMENT_UNREADABLE, ErrorCode.DEADLINE_EXCEEDED}
    final |= {ErrorCode.RUN_LIMIT_REACHED}
    assert {v for v in ErrorCode if v.is_retryable} | final == set(codes)


@given(text=st.text(), index=st.integers(1, 10**9), attempt=st.integers(1, 99))
def test_stream_entry_fields_are_read_without_decoding_its_text(text: str, index: int, attempt: int) -> None:
    for entry, kind in (
        (StreamEntry.chunk(index, text), EntryKind.CHUNK),
        (StreamEntry.reset(index, attempt), EntryKind.RESET),
        (StreamEntry.progress(index, 50.0, text), EntryKind.PROGRESS),
    ):
        assert (entry.kind, entry.index) == (kind, index)
        assert b"\n" not in entry.data  # which separates entries in the logs
