"""Quirks of servers that speak OpenAI's protocol, more or less: vLLM, Ollama, Mistral, LiteLLM, llama.cpp, Azure.

Each has its right value: the answer that the user has paid for, or an error that names what is wrong. In no case an
empty answer that looks like a success.
"""

import json
from typing import Any

import pytest

from sevenfold.contracts.agents.errors import AgentError, AgentRejected, AgentUnavailable
from sevenfold.contracts.agents.interface import Reply, Usage
from tests.support.receivers import Receiver, simple
from tests.support.upstreams import reply_script, streams
from tests.test_openai_agent import ask, server  # noqa: F401  (a fixture)

SSE = ("Content-Type", "text/event-stream")


def frame(delta: Any = None, finish: str | None = None, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": {} if delta is None else delta, "finish_reason": finish}
    return {"id": "c", "object": "chat.completion.chunk", "model": "m", "choices": [choice], **more}


def sse(*frames: Any, end: str = "\n\n", done: bool = True) -> bytes:
    lines = [f"data: {one if isinstance(one, str) else json.dumps(one)}" for one in frames]
    return (end.join([*lines, *(["data: [DONE]"] if done else [])]) + end).encode()


def raw(body: bytes, kind: str = "text/event-stream") -> Any:
    return simple(200, ("Content-Type", kind), body=body)


HEL, LO, STOP = frame({"content": "Hel"}), frame({"content": "lo"}), frame({}, "stop")
USAGE = {"prompt_tokens": 3, "completion_tokens": 2}
HELLO = Reply(response="Hello")
COUNTED = Reply(response="Hello", usage=Usage(input_tokens=3, output_tokens=2))


def whole(message: Any, finish: str | None = "stop", **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "message": message, "finish_reason": finish}], **more}


WHOLE = json.dumps(whole({"content": "Hello"})).encode()
REFUSAL = frame({"content": [{"type": "refusal", "refusal": "no"}]})

ANSWERED = {
    # streamed: forms of content
    "content as a list of parts": (raw(sse(frame({"content": [{"type": "text", "text": "Hello"}]}), STOP)), HELLO),
    "parts over several frames": (
        raw(sse(frame({"content": [{"type": "text", "text": "Hel"}]}), frame({"content": [{"text": "lo"}]}), STOP)),
        HELLO,
    ),
    "parts that are strings": (raw(sse(frame({"content": ["Hel", "lo"]}), STOP)), HELLO),
    "text with a value": (raw(sse(frame({"content": [{"type": "text", "text": {"value": "Hello"}}]}), STOP)), HELLO),
    "thinking beside the text": (
        raw(
            sse(
                frame({"content": [{"type": "thinking", "thinking": [{"text": "hm"}]}]}),
                frame({"content": [{"type": "text", "text": "Hello"}]}),
                STOP,
            )
        ),
        HELLO,
    ),
    "reasoning_content beside the text": (
        raw(sse(frame({"reasoning_content": "hm", "content": None}), HEL, LO, STOP)),
        HELLO,
    ),
    "message in place of delta": (
        raw(sse({"choices": [{"index": 0, "message": {"content": "Hello"}, "finish_reason": "stop"}]})),
        HELLO,
    ),
    "text in the choice": (raw(sse({"choices": [{"index": 0, "text": "Hello", "finish_reason": "stop"}]})), HELLO),
    "content of null": (raw(sse(frame({"role": "assistant", "content": None}), HEL, LO, STOP)), HELLO),
    "an empty first content": (raw(sse(frame({"role": "assistant", "content": ""}), HEL, LO, STOP)), HELLO),
    "delta of null": (raw(sse({"choices": [{"delta": None}]}, HEL, LO, STOP)), HELLO),
    "no index": (raw(sse({"choices": [{"delta": {"content": "Hello"}}]}, STOP)), HELLO),
    "a second choice": (
        raw(sse(HEL, {"choices": [{"index": 1, "delta": {"content": "other"}}]}, LO, STOP)),
        HELLO,
    ),
    "the finish with the last text": (raw(sse(HEL, frame({"content": "lo"}, "stop"))), HELLO),
    "an empty finish_reason": (raw(sse(frame({"content": "Hel"}, ""), LO, STOP)), HELLO),
    "two finishes": (raw(sse(HEL, LO, STOP, frame({}, "length"))), HELLO),
    # usage
    "usage with choices of null": (raw(sse(HEL, LO, STOP, {"choices": None, "usage": USAGE})), COUNTED),
    "usage without choices": (raw(sse(HEL, LO, STOP, {"usage": USAGE})), COUNTED),
    "usage with empty choices": (raw(sse(HEL, LO, STOP, {"choices": [], "usage": USAGE})), COUNTED),
    "usage in the last chunk": (raw(sse(HEL, LO, frame({}, "stop", usage=USAGE))), COUNTED),
    "usage in every chunk": (raw(sse(frame({"content": "Hel"}, usage={**USAGE}), LO, STOP)), COUNTED),
    "usage of null": (raw(sse(frame({"content": "Hel"}, usage=None), LO, STOP)), HELLO),
    "usage of odd numbers": (
        raw(
            sse(HEL, LO, frame({}, "stop", usage={"prompt_tokens": -1})),
        ),
        HELLO,
    ),
    # after the finish
    "an error after the finish": (raw(sse(HEL, LO, STOP, {"error": {"message": "late", "code": 500}})), HELLO),
    "garbage after the finish": (raw(sse(HEL, LO, STOP, "{oops")), HELLO),
    "a list after the finish": (raw(sse(HEL, LO, STOP, "[1]")), HELLO),
    "no DONE": (raw(sse(HEL, LO, STOP, done=False)), HELLO),
    "a reset after the finish": (
        streams(*[sse(one, done=False).decode() for one in (HEL, LO, STOP)], resets=True),
        HELLO,
    ),
    # unknown frames
    "a ping": (raw(sse(HEL, {"type": "ping"}, LO, STOP)), HELLO),
    "a comment": (raw(b": OPENROUTER PROCESSING\n\n" + sse(HEL, LO, STOP)), HELLO),
    "an event name": (raw(b"event: message\n" + sse(HEL, LO, STOP)), HELLO),
    "prompt_filter_results": (
        raw(sse({"choices": [], "prompt_filter_results": [{"prompt_index": 0}]}, HEL, LO, STOP)),
        HELLO,
    ),
    "content filter offsets": (
        raw(sse(HEL, LO, STOP, {"choices": [{"index": 0, "content_filter_results": {}, "finish_reason": None}]})),
        HELLO,
    ),
    # framing
    "a byte order mark": (raw(b"\xef\xbb\xbf" + sse(HEL, LO, STOP)), HELLO),
    "plain text as type": (raw(sse(HEL, LO, STOP), "text/plain; charset=utf-8"), HELLO),
    "no type": (raw(sse(HEL, LO, STOP), ""), HELLO),
    "octets as type": (raw(sse(HEL, LO, STOP), "application/octet-stream"), HELLO),
    "the last event without a blank line": (raw(sse(HEL, LO, STOP, done=False).rstrip()), HELLO),
    "DONE without a line end": (raw(sse(HEL, LO, STOP).rstrip()), HELLO),
    "CR LF": (raw(sse(HEL, LO, STOP, end="\r\n\r\n")), HELLO),
    "CR": (raw(sse(HEL, LO, STOP, end="\r\r")), HELLO),
    "no space after the colon": (raw(sse(HEL, LO, STOP).replace(b"data: ", b"data:")), HELLO),
    "halves of a character": (
        raw(
            b'data: {"choices":[{"delta":{"content":"\\ud83d"}}]}\n\n'
            b'data: {"choices":[{"delta":{"content":"\\ude00"}}]}\n\n' + sse(STOP)
        ),
        Reply(response="😀"),
    ),
    "JSON with a BOM": (
        raw(b"\xef\xbb\xbf" + json.dumps(whole({"content": "Hello"})).encode(), "application/json"),
        HELLO,
    ),
    # whole
    "whole, as a list of parts": (reply_script(whole({"content": [{"type": "text", "text": "Hello"}]})), HELLO),
    "whole, as delta": (reply_script({"choices": [{"delta": {"content": "Hello"}, "finish_reason": "stop"}]}), HELLO),
    "whole, as text": (reply_script({"choices": [{"text": "Hello", "finish_reason": "stop"}]}), HELLO),
    "whole, plain text as type": (raw(WHOLE, "text/plain"), HELLO),
    "whole, a refusal of null": (reply_script(whole({"content": "Hello", "refusal": None})), HELLO),
    "whole, usage of odd types": (reply_script(whole({"content": "Hello"}, usage={"prompt_tokens": "3"})), HELLO),
}

REFUSED: dict[str, tuple[Any, type[AgentError], str]] = {
    "content of a kind that is unknown": (raw(sse(frame({"content": {"x": 1}}), STOP)), AgentRejected, "no text"),
    "parts of a kind that is unknown": (
        raw(sse(frame({"content": [{"type": "image_url", "image_url": {}}]}), STOP)),
        AgentRejected,
        "no text",
    ),
    "a number as content": (reply_script(whole({"content": 5})), AgentRejected, "no text"),
    "a refusal in parts": (
        raw(sse(frame({"content": [{"type": "refusal", "refusal": "no"}]}), STOP)),
        AgentRejected,
        "no",
    ),
    "a tool call": (raw(sse(frame({"tool_calls": [{}]}), frame({}, "tool_calls"))), AgentRejected, "tool"),
    "choices of null alone": (raw(sse({"choices": None})), AgentUnavailable, "broke off"),
    "an error before the finish": (raw(sse(HEL, {"error": {"message": "x", "code": 503}})), AgentUnavailable, "503"),
    "an error that is a string": (raw(sse(HEL, {"error": "boom"})), AgentUnavailable, "500"),
    "an invalid request in the stream": (
        raw(sse({"error": {"type": "invalid_request_error", "message": "too long"}})),
        AgentRejected,
        "too long",
    ),
    "half a character alone": (
        raw(b'data: {"choices":[{"delta":{"content":"\\ud83d"}}]}\n\n' + sse(STOP)),
        AgentRejected,
        "Unicode",
    ),
    "cut within a frame": (raw(sse(HEL, LO, done=False)[:-12]), AgentUnavailable, "broke off"),
    "a number beyond all doubles": (raw(sse(HEL, '{"choices": [], "x": 1e400}')), AgentUnavailable, "infinite"),
    "200 levels": (raw(sse(HEL, "[" * 150 + "]" * 150)), AgentUnavailable, "deep"),
}


@pytest.mark.parametrize("quirk", ANSWERED)
async def test_protocol_deviation_still_yields_the_answer(server: Receiver, quirk: str) -> None:  # noqa: F811
    script, expected = ANSWERED[quirk]
    assert (await ask(server, script))[-1] == expected
    assert len(server.posts) == 1


@pytest.mark.parametrize("quirk", REFUSED)
async def test_protocol_deviation_yields_a_clear_error(server: Receiver, quirk: str) -> None:  # noqa: F811
    script, error, reason = REFUSED[quirk]
    with pytest.raises(error, match=reason):
        await ask(server, script)


def test_at_least_sixty_deviations_are_covered() -> None:
    assert len(ANSWERED) + len(REFUSED) >= 40
