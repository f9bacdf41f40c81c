"""CloudEvents and filters: what is read, what is refused, and another implementation as an oracle."""

import base64
import json
from typing import Any

import pytest
from cloudevents.core.bindings.http import (
    HTTPMessage,
    from_http,
    from_structured_event,
    to_binary_event,
    to_structured_event,
)
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent as OtherEvent
from hypothesis import given
from hypothesis import strategies as st

from sevenfold.contracts.events.cloudevents import (
    MAX_EVENT_BYTES,
    CloudEvent,
    InvalidEventError,
    event_from_binary,
    event_from_json,
    to_binary_mode,
)
from sevenfold.contracts.events.filters import EventFilter, value_at_path

GOOD: dict[str, Any] = {"specversion": "1.0", "id": "1", "source": "/shop", "type": "customer.created"}


def event(**more: Any) -> CloudEvent:
    return event_from_json({**GOOD, **more})


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"id": None}, "id"),
        ({"id": ""}, "id"),
        ({"id": 5}, "id"),
        ({"id": "a\x00b"}, "id"),
        ({"source": ""}, "source"),
        ({"source": "with space"}, "source"),
        ({"source": "http://[bad"}, "source"),
        ({"type": ""}, "type"),
        ({"type": "x" * 257}, "type"),
        ({"specversion": "0.3"}, "specversion"),
        ({"time": "yesterday"}, "time"),
        ({"time": 12345}, "time"),
        ({"data": 1, "data_base64": "AAAA"}, "exclude"),
        ({"data_base64": "not base64!"}, "base64"),
        ({"UPPER": "x"}, "UPPER"),
        ({"my-extension": "x"}, "my-extension"),
        ({"ext": {"a": 1}}, "ext"),
        ({"ext": 2**31}, "ext"),
        ({"ext": 1.5}, "ext"),
        ({"ext": "a\nb"}, "ext"),
        ({"data": "x" * MAX_EVENT_BYTES}, "bytes"),
    ],
)
def test_invalid_event_names_the_wrong_field(change: dict[str, Any], named: str) -> None:
    raw = {key: value for key, value in {**GOOD, **change}.items() if value is not None}
    with pytest.raises(InvalidEventError, match=named):
        event_from_json(raw)


@pytest.mark.parametrize("raw", [None, 5, "x", [], True])
def test_event_must_be_a_json_object(raw: object) -> None:
    with pytest.raises(InvalidEventError, match="object"):
        event_from_json(raw)


_TEXT = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=40)
_NAMES = st.from_regex(r"[a-z][a-z0-9]{0,15}", fullmatch=True).filter(
    lambda name: name not in CloudEvent.model_fields
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_EVENTS = st.builds(
    lambda identity, event_type, extensions, data: event_from_json(
        {**extensions, "specversion": "1.0", "id": identity, "source": "/s", "type": event_type, "data": data}
    ),
    _TEXT,
    _TEXT,
    st.dictionaries(_NAMES, _TEXT, max_size=4),
    _JSON,
)


@given(_EVENTS)
def test_json_event_round_trip(one: CloudEvent) -> None:
    assert event_from_json(json.loads(json.dumps(one.to_json()))) == one


@given(_EVENTS)
def test_binary_event_round_trip(one: CloudEvent) -> None:
    attributes, content_type, body = to_binary_mode(one)
    again = event_from_binary(attributes, content_type, body)
    assert again.content_hash() == one.content_hash()
    assert again.extensions == {name: one.attribute(name) for name in one.extensions}


@pytest.mark.parametrize("data", [{"id": "12345", "n": 1}, "text", ["a"], None, 5, True])
def test_cloudevents_sdk_reads_our_events(data: Any) -> None:
    one = event(data=data, datacontenttype="application/json", correlationid="c", subject="s")
    attributes, content_type, body = to_binary_mode(one)
    headers = {f"ce-{name}": value for name, value in attributes.items()}
    message = HTTPMessage(headers={**headers, "content-type": content_type or ""}, body=body)
    for read in (
        from_http(message, JSONFormat()),
        from_structured_event(
            HTTPMessage(
                headers={"content-type": "application/cloudevents+json"}, body=json.dumps(one.to_json()).encode()
            ),
            JSONFormat(),
        ),
    ):
        assert read.get_id() == "1"
        assert read.get_type() == "customer.created"
        assert read.get_extension("correlationid") == "c"
        assert read.get_data() == data or (data is None and not read.get_data())


def test_events_of_the_cloudevents_sdk_are_read() -> None:
    other = OtherEvent(
        {
            "id": "1",
            "source": "/shop",
            "type": "customer.created",
            "specversion": "1.0",
            "datacontenttype": "application/json",
        },
        {"id": "12345"},
    )
    structured = to_structured_event(other, JSONFormat())
    binary = to_binary_event(other, JSONFormat())
    one = event_from_json(json.loads(structured.body))
    attributes = {k.removeprefix("ce-"): v for k, v in binary.headers.items() if k.startswith("ce-")}
    two = event_from_binary(attributes, binary.headers.get("content-type"), bytes(binary.body))
    assert one.data == two.data == {"id": "12345"}
    assert one.content_hash() == two.content_hash()


def test_binary_data_round_trip() -> None:
    raw = bytes(range(256))
    one = event_from_binary({**GOOD}, "image/png", raw)
    assert one.data_base64 == base64.b64encode(raw).decode()
    assert to_binary_mode(one)[2] == raw
    with pytest.raises(InvalidEventError, match="content type"):
        event_from_binary({**GOOD}, "application/json", b"{")


@pytest.mark.parametrize(
    ("raw", "matches"),
    [
        ({"exact": {"type": "customer.created"}}, True),
        ({"exact": {"type": "customer"}}, False),
        ({"exact": {"type": "customer.created", "source": "/other"}}, False),
        ({"prefix": {"type": "customer."}}, True),
        ({"suffix": {"type": ".created"}}, True),
        ({"prefix": {"subject": "x"}}, False),
        ({"exact": {"hops": "3"}}, True),
        ({"exact": {"urgent": "true"}}, True),
        ({"not": {"exact": {"source": "/other"}}}, True),
        ({"any": [{"exact": {"type": "x"}}, {"suffix": {"type": "created"}}]}, True),
        ({"all": [{"exact": {"type": "x"}}, {"suffix": {"type": "created"}}]}, False),
        ([{"prefix": {"type": "customer"}}, {"data": {"tier": "gold"}}], True),
        ({"data": {"address.country": ["CH", "DE"]}}, True),
        ({"data": {"items.0.sku": "a-1"}}, True),
        ({"data": {"items.1.sku": "a-1"}}, False),
        ({"data": {"one": True}}, False),
        ({"data": {"missing": None}}, True),
    ],
)
def test_filter_matches(raw: Any, matches: bool) -> None:
    one = event(
        hops=3,
        urgent=True,
        data={"tier": "gold", "address": {"country": "DE"}, "items": [{"sku": "a-1"}], "one": 1},
    )
    read = EventFilter.model_validate(raw)
    assert read.matches(one) is matches
    again = EventFilter.model_validate_json(read.model_dump_json(by_alias=True))
    assert again.matches(one) is matches


@pytest.mark.parametrize(
    "raw",
    [
        {},
        {"regex": {"type": "x"}},
        {"exact": {}},
        {"all": []},
        {"exact": {"a": "b"}, "not": {"exact": {"a": "b"}}},
        5,
    ],
)
def test_invalid_filter_is_refused(raw: Any) -> None:
    with pytest.raises(ValueError, match="validation error"):
        EventFilter.model_validate(raw)


def test_data_path_selects_a_value() -> None:
    assert value_at_path({"a": [{"b": 1}]}, "a.0.b") == 1
    assert value_at_path({"a": [{"b": 1}]}, "a.x.b") is None
    assert value_at_path("text", "a") is None
