"""Starts the runs of OpenAI's clients."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Header
from structlog.contextvars import bind_contextvars
from temporalio.client import Client, WorkflowHandle

from sevenfold.adapters.temporal.run_starts import FINGERPRINT_MEMO, RunQueue, fingerprint
from sevenfold.api.dependencies import component
from sevenfold.api.http.strict_json import validate_body
from sevenfold.api.http.time_params import to_query_time
from sevenfold.api.openai.conversations import find_query
from sevenfold.api.openai.requests import PREVIOUS, STORE, OpenAIRequest
from sevenfold.api.openai.resets import find_resets
from sevenfold.api.runs.start import RunStarter, StartedRun
from sevenfold.api.streams.lines import StreamSubscription
from sevenfold.api.streams.resume import StreamOpener
from sevenfold.contracts.access.principals import Principal
from sevenfold.contracts.agents.interface import Message
from sevenfold.contracts.agents.model_requests import INSTRUCTIONS
from sevenfold.contracts.identity import build_workflow_id, parse_public_id
from sevenfold.contracts.runs.requests import QueryRequest, StreamRequest
from sevenfold.contracts.runs.run import WORKFLOW_TYPES, Pattern, RunResult

Body = TypeVar("Body", QueryRequest, StreamRequest)

# The client repeats a request within seconds, without a key.
_REPEAT_WINDOW = timedelta(minutes=15)
_MAX_CANDIDATES = 200


@dataclass(frozen=True)
class Repeat:
    """How a repeated request is recognised: by its idempotency key, or by the client's retry count."""

    key: str | None
    count: int = 0

    def key_for(self, body: QueryRequest | StreamRequest) -> str | None:
        """Returns the key of a run that this request starts. A repetition without one has a key all the same: two of
        them may come at the same time.
        """
        if self.key is not None or not self.count:
            return self.key
        window = int(datetime.now(UTC).timestamp() // _REPEAT_WINDOW.total_seconds())
        return f"repeated-{window}-{fingerprint(body)}"


async def _repeat(
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=257, pattern=r"^[!-~]+$")] = None,
    x_stainless_retry_count: Annotated[str | None, Header()] = None,
) -> Repeat:
    count = x_stainless_retry_count or "0"
    return Repeat(idempotency_key, int(count) if count.isascii() and count.isdigit() and len(count) < 4 else 0)


RepeatDep = Annotated[Repeat, Depends(_repeat)]


@dataclass(frozen=True)
class Conversation:
    """What an agent is asked: the messages, the client's instructions, and the id of the response before.
    `is_stored`: the response may be read again.
    """

    messages: list[Message]
    instructions: str | None = None
    previous: str | None = None
    is_stored: bool = True

    def fields(self) -> dict[str, Any]:
        """Returns the fields of the gateway's own request."""
        context: dict[str, Any] = {INSTRUCTIONS: self.instructions, PREVIOUS: self.previous}
        context = {name: value for name, value in context.items() if value}
        if not self.is_stored:
            context[STORE] = False
        return {"query": find_query(self.messages), "context": context, "messages": self.messages}


@dataclass(frozen=True)
class OpenAIStarts:
    """Starts runs, or finds the one that an earlier request of the client has started."""

    client: Client
    starter: RunStarter
    opener: StreamOpener

    async def start(
        self,
        principal: Principal,
        request: OpenAIRequest,
        conversation: Conversation,
        repeat: Repeat,
        *,
        pattern: Pattern = Pattern.SYNCHRONOUS,
    ) -> StartedRun:
        """Starts a run whose client waits, or one that is polled. Raises as `RunStarter` does."""
        body = _build_body(QueryRequest, request, conversation)
        if (found := await self._find_repeated(principal, body, repeat, pattern)) is not None:
            return found
        run = self.starter.prepare(pattern, principal.tenant, body, task="query", key=repeat.key_for(body))
        workflow_input = await self.starter.build_input(
            run, query=body.query, context=body.context, messages=body.messages
        )
        waits = pattern is Pattern.SYNCHRONOUS
        return await self.starter.start(run, workflow_input, queue=RunQueue.INTERACTIVE, fails_fast=waits)

    async def start_stream(
        self, principal: Principal, request: OpenAIRequest, conversation: Conversation, repeat: Repeat
    ) -> StreamSubscription:
        """Starts a run whose text is streamed, or returns the stream of the one that an earlier request has started.
        Raises as `StreamOpener` does.
        """
        body = _build_body(StreamRequest, request, conversation)
        found = await self._find_repeated(principal, body, repeat, Pattern.STREAMING)
        if found is not None:
            return replace(await self.opener.subscribe(principal.tenant, found.run_id), replayed=True)
        return await self.opener.start(principal, body, repeat.key_for(body))

    async def without_void_text(self, subscription: StreamSubscription) -> StreamSubscription:
        """Returns a replayed stream from its last reset on, for clients that cannot take text back."""
        if not subscription.replayed:
            return subscription
        workflow_id = build_workflow_id(subscription.tenant, subscription.run_id)
        resets = await find_resets(self.opener.hubs.log, workflow_id)
        return replace(subscription, after_index=resets[-1]) if resets else subscription

    async def _find_repeated(
        self, principal: Principal, body: QueryRequest | StreamRequest, repeat: Repeat, pattern: Pattern
    ) -> StartedRun | None:
        """Returns the run that the client's first try has started: OpenAI's client sends no key by itself, but counts
        its tries.
        """
        if repeat.key is not None or not repeat.count:
            return None
        since = to_query_time(datetime.now(UTC) - _REPEAT_WINDOW)
        agent = self.starter.agents.resolve(principal.tenant, body.agent)
        query = (
            f"WorkflowType = '{WORKFLOW_TYPES[pattern]}' AND Tenant = '{principal.tenant}' AND Agent = '{agent}' "
            f"AND StartTime >= '{since}'"
        )
        wanted = fingerprint(body)
        async for execution in self.client.list_workflows(query, limit=_MAX_CANDIDATES):
            if (await execution.memo()).get(FINGERPRINT_MEMO) == wanted:
                run_id = parse_public_id(execution.id)
                bind_contextvars(run_id=run_id)
                handle: WorkflowHandle[Any, RunResult] = self.client.get_workflow_handle(
                    execution.id, result_type=RunResult
                )
                return StartedRun(run_id, handle, replayed=True)
        return None


def _build_body(model: type[Body], request: OpenAIRequest, conversation: Conversation) -> Body:
    """Returns the gateway's own request. Raises RequestValidationError: what is merged may be too large."""
    return validate_body(model, {**dict(request.start_options()), **conversation.fields()})


OpenAIStartsDep = Annotated[OpenAIStarts, Depends(component("openai_starts"))]
