"""Ids and preferences: the small rules that everything else leans on."""

from hypothesis import given
from hypothesis import strategies as st

from api.preferences import DEFAULT_WAIT, read_preference
from contracts.answers import processing_time
from contracts.identity import is_public_id, keyed_id, new_id, public_id, workflow_id
from contracts.streams import StreamEntry
from contracts.verdicts import AgentError, Verdict


def test_new_ids_have_the_form_and_differ() -> None:
    ids = {new_id("qry") for _ in range(1000)}
    assert len(ids) == 1000
    assert all(is_public_id(one) for one in ids)


@given(st.text(), st.text(), st.text())
def test_a_keyed_id_is_always_the_same_and_belongs_to_tenant_route_and_key(tenant: str, route: str, key: str) -> None:
    one = keyed_id("qry", tenant, route, key)
    assert is_public_id(one)
    assert one == keyed_id("qry", tenant, route, key)
    assert one != keyed_id("qry", tenant + "x", route, key)
    assert one != keyed_id("qry", tenant, route + "x", key)
    assert one != keyed_id("qry", tenant, route, key + "x")
    assert public_id(workflow_id(tenant, one)) == one


def test_a_keyed_id_never_changes_between_releases() -> None:
    # It is the idempotency of every run that was started before a deployment.
    assert keyed_id("qry", "default", "synchronous", "key") == "qry_44qjjpbifowiabrckdla27jaca"


@given(st.text())
def test_other_texts_are_no_ids(text: str) -> None:
    assert not is_public_id(text)


def test_preferences() -> None:
    assert read_preference(None).seconds == DEFAULT_WAIT
    assert read_preference("wait=5").seconds == 5
    assert read_preference('foo, wait="7"; x=y').seconds == 7
    assert read_preference("wait=999").seconds == 60
    assert read_preference("wait=999").applied == "wait=60"
    assert read_preference("respond-async").seconds == 0
    assert read_preference("respond-async, wait=10").seconds == 10, "RFC 7240: asynchronous after that time"


def test_processing_times_read_as_in_the_article() -> None:
    assert [processing_time(seconds) for seconds in (2.3, 0.017, 0, 61.04)] == ["2.3s", "0.017s", "0.000s", "61.0s"]


def test_every_verdict_of_a_call_has_one_class() -> None:
    verdicts = [kind.verdict for kind in AgentError.__subclasses__()]
    assert len(set(verdicts)) == len(verdicts)
    final = {Verdict.AGENT_REJECTED, Verdict.DOCUMENT_UNREADABLE, Verdict.DEADLINE_EXCEEDED}
    assert {v for v in Verdict if v.retryable} | final == set(verdicts)


@given(text=st.text(), index=st.integers(1, 10**9), attempt=st.integers(1, 99))
def test_a_stream_entry_is_read_back_without_decoding_it(text: str, index: int, attempt: int) -> None:
    for entry in (
        StreamEntry.chunk(index, text),
        StreamEntry.reset(index, attempt),
        StreamEntry.progress(index, 50.0, text),
    ):
        assert StreamEntry.parse(entry.text) == entry
        assert "\n" not in entry.text  # which separates entries in Redis
