"""Answers the steps and questions of an agent in a child process."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from sevenfold.adapters.agents.error_boundary import as_agent_error
from sevenfold.adapters.agents.isolated.process import AgentProcess, ProcessEndedError
from sevenfold.contracts.agents.asking import Suspended
from sevenfold.contracts.agents.step_runner import StepStart


class DurableRequests:
    """The requests of one call: several may wait at the same time, as parallel steps do."""

    def __init__(self, process: AgentProcess, durable: Any) -> None:
        self._process = process
        self._durable = durable
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, request: Mapping[str, Any]) -> None:
        """Answers a request when its answer is there."""
        task = asyncio.create_task(self._answer(request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def cancel(self) -> None:
        """The call has ended."""
        for task in self._tasks:
            task.cancel()

    async def _answer(self, request: Mapping[str, Any]) -> None:
        answer: dict[str, Any] = {"id": request["id"]}
        try:
            answer["value"] = await self._call(request["method"], request["arguments"])
        except Suspended:
            answer["suspended"] = True
        except Exception as error:
            failed = as_agent_error(error)
            answer["error"] = {"code": failed.code, "detail": failed.detail}
        with suppress(ProcessEndedError):  # The call reports it.
            await self._process.answer({"durable": answer})

    async def _call(self, method: str, arguments: dict[str, Any]) -> Any:
        match method:
            case "begin_step":
                is_main = bool(arguments["is_main"])
                return asdict(await self._durable.begin_step(arguments["name"], arguments["key"], is_main=is_main))
            case "end_step":
                failure = arguments["failure"] and tuple(arguments["failure"])
                return await self._durable.end_step(_to_start(arguments), arguments["result"], failure)
            case "abandon_step":
                return await self._durable.abandon_step(_to_start(arguments))
            case _:
                return await self._durable.ask(arguments["question"])


def _to_start(arguments: dict[str, Any]) -> StepStart:
    return StepStart(**arguments["start"])
