"""Steps and questions of an agent in a child process.

The standard library alone, on Python 3.9 and newer, as child.py.
"""

from __future__ import annotations

import asyncio
import dataclasses
import importlib
import importlib.util
import json
import sys
import threading
from contextvars import ContextVar
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any


def load_shared(name: str) -> ModuleType:
    """Returns a module of Sevenfold's contracts that imports the standard library alone: the environment's own, or
    that of the worker.
    """
    if "sevenfold" in sys.modules:
        return importlib.import_module(f"sevenfold.contracts.agents.{name}")
    own_name = f"sevenfold_{name}"
    if own_name not in sys.modules:
        path = Path(__file__).parents[3] / "contracts" / "agents" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(own_name, path)
        if spec is None or spec.loader is None:
            raise ImportError(f"{path} cannot be loaded")
        sys.modules[own_name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[own_name])
    return sys.modules[own_name]


class DurableError(Exception):
    """The worker refuses a step or a question. `code`: of the error there."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class DurableProxy:
    """Reaches what makes the call durable in the worker."""

    def __init__(self, send: Any) -> None:
        self.in_step: ContextVar[bool] = ContextVar("in_step", default=False)
        self._send = send
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._main_task = asyncio.current_task()

    def is_main_task(self) -> bool:
        return asyncio.current_task() is self._main_task

    async def begin_step(self, name: str, key: str | None, *, is_main: bool = False) -> Any:
        found = await self._request("begin_step", {"name": name, "key": key, "is_main": is_main})
        if found["failure"] is not None:
            found["failure"] = tuple(found["failure"])
        return load_shared("step_runner").StepStart(**found)

    async def end_step(self, start: Any, result: Any, failure: tuple[str, str] | None) -> Any:
        if hasattr(result, "model_dump"):
            result = result.model_dump(mode="json")
        elif dataclasses.is_dataclass(result) and not isinstance(result, type):
            result = dataclasses.asdict(result)
        arguments = {"start": dataclasses.asdict(start), "result": result, "failure": failure}
        try:
            json.dumps(result, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            await self.abandon_step(start)
            detail = f"The step {start.name} returned what cannot be encoded as JSON: {error}."
            raise DurableError("AgentRejected", detail) from error
        return await self._request("end_step", arguments)

    async def abandon_step(self, start: Any) -> None:
        await self._request("abandon_step", {"start": dataclasses.asdict(start)})

    async def ask(self, question: dict[str, Any]) -> Any:
        return await self._request("ask", {"question": question})

    def _request(self, method: str, arguments: dict[str, Any]) -> asyncio.Future[Any]:
        """Sends a request; returns the future of its answer."""
        number = len(self._waiting)  # ended ones are kept, so that no number is used twice
        waiting = self._waiting[number] = asyncio.get_running_loop().create_future()
        self._send.send_frame({"durable": {"id": number, "method": method, "arguments": arguments}})
        return waiting

    def receive(self, answer: dict[str, Any]) -> None:
        """Takes an answer of the worker."""
        waiting = self._waiting[answer["id"]]
        if waiting.done():
            if (start := answer.get("value")) and isinstance(start, dict) and start.get("is_recorded") is False:
                # The task that began this step was cancelled before it could execute it.
                self._request("abandon_step", {"start": start})
            return
        if answer.get("suspended"):
            waiting.set_exception(load_shared("asking").Suspended())
        elif "error" in answer:
            waiting.set_exception(DurableError(answer["error"]["code"], answer["error"]["detail"]))
        else:
            waiting.set_result(answer["value"])


class Context:
    """What `sevenfold.AgentContext` is, for an agent whose environment has no Sevenfold."""

    def __init__(self, fields: dict[str, Any], durable: DurableProxy) -> None:
        self.durable = durable
        self.loop = asyncio.get_running_loop()
        self.deadline = datetime.fromtimestamp(fields["deadline"], timezone.utc)
        self.request_id = fields["request_id"]
        self.traceparent = fields["traceparent"]
        self.tenant = fields["tenant"]
        self.cancelled = threading.Event()

    def remaining_seconds(self) -> float:
        return max(0.0, (self.deadline - datetime.now(timezone.utc)).total_seconds())

    async def step(self, name: str, function: Any, *args: Any, **kwargs: Any) -> Any:
        steps = load_shared("step_runner")
        return await steps.run_step(self.durable, name, function, *_split(args, kwargs))

    def step_sync(self, name: str, function: Any, *args: Any, **kwargs: Any) -> Any:
        steps = load_shared("step_runner")
        return steps.run_step_in_thread(self.durable, self.loop, name, function, *_split(args, kwargs))

    async def ask(self, message: str, schema: Any = None, **options: Any) -> Any:
        asking = load_shared("asking")
        return await asking.ask(self.durable, asking.Ask(message, schema, **options))

    def ask_sync(self, message: str, schema: Any = None, **options: Any) -> Any:
        asking = load_shared("asking")
        steps = load_shared("step_runner")
        wait = partial(steps.on_loop, self.loop, "ask")
        question = asking.Ask(message, schema, **options)
        return asking.ask_in_thread(self.durable, wait, question, is_main=steps.is_agent_thread())


def _split(args: Any, kwargs: dict[str, Any]) -> tuple[Any, Any]:
    """Returns the arguments of a step's function, and the step's options."""
    names = ("key", "retries", "timeout", "retry_on")
    options = load_shared("step_runner").StepOptions(**{name: kwargs[name] for name in names if name in kwargs})
    return (args, {name: value for name, value in kwargs.items() if name not in names}), options
