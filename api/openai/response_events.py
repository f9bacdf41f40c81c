"""A run's stream as the events of the Responses API.

`sequence_number` is a pure function of the stream's indexes (`contracts.streams`), so every replica gives an event
the same number, before and after any restart:

- created 0, in_progress 1, the first item 2, its part 3; the delta of the chunk with index *i*: *i* + 3.
- A reset with index *r* closes the open item and opens the next with the numbers *r* - 1 to *r* + 3. They are free: a
  reset is at least 500 above the chunk before it.
- The end after index *i* has *i* + 4 to *i* + 7.
- A run that streamed nothing has its whole answer at the index 900, which no unlogged chunk has: this distinguishes
  a reader who has the whole answer from one who received chunks that the log does not have.
- What has no index of its own, has the number of what came before: questions, and errors of the transport.
"""

import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from sevenfold.api.openai.answers import describe_run, text_of, text_of_requests
from sevenfold.api.openai.questions import find_open_requests, load_open_requests, with_silence
from sevenfold.api.openai.response_objects import ResponseHead, build_error, build_message
from sevenfold.api.runs.approval_desk import InputRequest
from sevenfold.api.runs.reader import RunReader
from sevenfold.api.streams.lines import StreamLine, StreamSubscription
from sevenfold.contracts.access.principals import Principal
from sevenfold.contracts.agents.interface import Usage
from sevenfold.contracts.runs.outcomes import RunAnswer
from sevenfold.contracts.runs.run import RunStatus
from sevenfold.contracts.runs.streams import Index

_FIRST_DELTA = 3

# The index of the whole text of a run that streamed nothing: above MAX_UNCONFIRMED, below RESET_STEP.
WHOLE_INDEX = 900

# How long a stream with open questions is silent once all that it has was sent.
_SILENCE_SECONDS = 1.0


def to_index(sequence_number: int) -> Index:
    """Returns the index of the chunk or reset that a reader has, who has the event with this number."""
    return max(0, sequence_number - _FIRST_DELTA)


@dataclass(frozen=True)
class ItemStart:
    """Where the open item began: after a reset, or at the start of the stream. `output_index`: its place."""

    reset_index: Index = 0
    output_index: int = 0


@dataclass
class ResponseEvents:
    """The events of one response for one reader, who has all up to `after`.

    `text`: of the open item, as far as this reader has seen it; None if its beginning came before `after`. `asked`:
    the questions that were open at the start, with links. `has_whole`: the reader has the answer of a run that
    streamed nothing.
    """

    head: ResponseHead
    reader: RunReader
    principal: Principal
    after: int = -1
    item: ItemStart = field(default_factory=ItemStart)
    text: str | None = ""
    asked: list[InputRequest] = field(default_factory=list)
    has_whole: bool = False

    async def of(self, subscription: StreamSubscription) -> AsyncIterator[bytes]:
        """Yields server-sent events, and a comment as a heartbeat."""
        index = WHOLE_INDEX if self.has_whole else subscription.after_index
        yield b"".join(self._opening()) or b": resumed\n\n"
        all_lines = subscription.lines()
        async for lines in with_silence(all_lines, _SILENCE_SECONDS) if self.asked else all_lines:
            if not lines:
                requests = await load_open_requests(self.reader, self.principal, self.head.run_id)
                if requests:
                    yield b"".join(self._ask(requests, index))
                    return
            pieces: list[bytes] = []
            for line in lines:
                if not self.has_whole:
                    index = WHOLE_INDEX if line.is_whole else max(line.index or 0, index)
                event = json.loads(line.data)
                if line.event == "input_required":
                    latest = line is lines[-1]
                    requests = await find_open_requests(
                        self.reader, self.principal, self.head.run_id, is_latest=latest
                    )
                    events, is_last = (self._ask(requests, index), True) if requests else ([], False)
                else:
                    events, is_last = await self._translate(line, event, index)
                pieces += events
                if is_last:
                    yield b"".join(pieces)
                    return
            yield b"".join(pieces) or b": heartbeat\n\n"

    def _opening(self) -> list[bytes]:
        started = self.head.build(RunStatus.PROCESSING, [])
        return [
            *self._event("response.created", 0, response=started),
            *self._event("response.in_progress", 1, response=started),
            *self._open_item(2),
        ]

    async def _translate(self, line: StreamLine, event: dict[str, Any], index: Index) -> tuple[list[bytes], bool]:
        match line.event:
            case None if "chunk" in event:
                return self._delta(event["chunk"], index), False
            case None if event.get("reset"):
                return self._reset(index), False
            case "done" if event["status"] == RunStatus.COMPLETED:
                return await self._complete(event, index), True
            case "done":
                cancelled = self.head.build(RunStatus.CANCELLED, [])
                events = [*self._close_item(index + 4, "incomplete")]
                return [*events, *self._event("response.incomplete", index + 7, response=cancelled)], True
            case "error":
                return self._fail(event, index), True
            case "reconnect":
                detail = "This process stops. Read on with `stream=true&starting_after=…`."
                return self._event("error", None, index, code="reconnect", message=detail, param=None), True
        return [], False

    def _delta(self, text: str, index: Index) -> list[bytes]:
        self.text = None if self.text is None else self.text + text
        return self._part_event("output_text.delta", index + 3, delta=text, logprobs=[])

    def _reset(self, index: Index) -> list[bytes]:
        closing = self._close_item(index - 1, "incomplete")
        self.item, self.text = ItemStart(index, self.item.output_index + 1), ""
        return [*closing, *self._open_item(index + 2)]

    def _open_item(self, number: int) -> list[bytes]:
        item = build_message(self.head.run_id, self.item.reset_index, "", "in_progress")
        part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        return [
            *self._event("response.output_item.added", number, output_index=self.item.output_index, item=item),
            *self._part_event("content_part.added", number + 1, part=part),
        ]

    def _close_item(self, number: int, status: str) -> list[bytes]:
        item = self._message(status)
        return [
            *self._part_event("output_text.done", number, text=self.text or "", logprobs=[]),
            *self._part_event("content_part.done", number + 1, part=item["content"][0]),
            *self._event("response.output_item.done", number + 2, output_index=self.item.output_index, item=item),
        ]

    async def _complete(self, event: dict[str, Any], index: Index) -> list[bytes]:
        """The answer is what was streamed; only where that is unknown, or nothing, it is read from the run."""
        answer = RunAnswer(
            response=self.text or "",
            confidence=event["confidence"],
            processing_time=event["processingTime"],
            usage=Usage.model_validate(event["usage"]) if event.get("usage") else None,
        )
        completed_at = time.time()
        delta: list[bytes] = []
        if not self.text:
            run = await self.reader.load(await self.reader.find(self.principal.tenant, self.head.run_id))
            answer = run.result or answer
            completed_at = run.closed_at.timestamp() if run.closed_at else completed_at
            if self.text is not None and text_of(answer):  # an answer of data alone, which no chunk has
                index = index + 1 if self.item.reset_index else WHOLE_INDEX
                delta = self._delta(text_of(answer), index)
        self.text = text_of(answer)
        completed = self.head.build_completed(answer, self._message("completed"), completed_at)
        closing = self._close_item(index + 4, "completed")
        return [*delta, *closing, *self._event("response.completed", index + 7, response=completed)]

    def _ask(self, requests: list[InputRequest], index: Index) -> list[bytes]:
        described = describe_run(self.head.run_id, None, requests)
        asked = self.head.build(RunStatus.INPUT_REQUIRED, [self._question(requests)], described)
        return self._event("response.incomplete", None, index, response=asked)

    def _question(self, requests: list[InputRequest]) -> dict[str, Any]:
        text = "\n\n".join(one for one in (self.text or "", text_of_requests(requests)) if one)
        return build_message(self.head.run_id, self.item.reset_index, text, "incomplete")

    def _fail(self, problem: dict[str, Any], index: Index) -> list[bytes]:
        described = {**describe_run(self.head.run_id), "error": problem}
        error = build_error(problem.get("code"), problem["detail"])
        failed = self.head.build(RunStatus.FAILED, [], described, error=error)
        closing = self._close_item(index + 4, "incomplete")
        return [*closing, *self._event("response.failed", index + 7, response=failed)]

    def _message(self, status: str) -> dict[str, Any]:
        return build_message(self.head.run_id, self.item.reset_index, self.text or "", status)

    def _part_event(self, name: str, number: int, **fields: Any) -> list[bytes]:
        item_id = f"msg_{self.head.run_id}_{self.item.reset_index}"
        place: dict[str, Any] = {"item_id": item_id, "output_index": self.item.output_index, "content_index": 0}
        return self._event(f"response.{name}", number, **place, **fields)

    def _event(self, kind: str, number: int | None, index: Index = 0, **fields: Any) -> list[bytes]:
        """Returns the event unless the reader has it. Without a `number` it has that of the event before it."""
        if number is not None and number <= self.after:
            return []
        numbered = number if number is not None else index + _FIRST_DELTA
        data = {"type": kind, "sequence_number": numbered, **fields}
        text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
        return [f"event: {kind}\ndata: {text}\n\n".encode()]
