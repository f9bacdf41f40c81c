"""The program of a child process: loads one agent and answers one call after the other.

`python child.py DESCRIPTOR PARENT VERSION DIRECTORY TARGET MEMORY_MB`; without a descriptor (`-`) it only loads the
agent. It imports the standard library alone, because the agent's environment need not have anything else, and runs on
Python 3.9 and newer. It speaks frames over the socket of that descriptor: four bytes with the length, then JSON.
Standard output and error are not part of that; the worker logs them.

Frames to it: {"call": {request, deadline, …}} and {"cancel": true}. Frames of it: {"ready": true}, {"event": {"kind":
"delta", …}} as often as the agent has one, and at the end {"done": true} or {"error": {…}}. Steps and questions are
requests of the child: {"durable": {"id", "method", "arguments"}}, answered by {"durable": {"id", "value"}}, or with
an "error" or "suspended" in place of the value.
"""

from __future__ import annotations

import asyncio
import dataclasses
import importlib
import inspect
import json
import os
import socket
import struct
import sys
import threading
import time
import traceback
from types import SimpleNamespace
from typing import Any

# This file is run as a program; tests import it.
if __package__:
    from sevenfold.adapters.agents.isolated import child_durable
else:
    import child_durable  # type: ignore[import-not-found, no-redef]

_EVENTS = {"Delta": "delta", "Progress": "progress", "Usage": "usage", "Reply": "reply"}
_MAX_TRACEBACK = 8_000
_MAX_UNSENT_BYTES = 1_000_000


def load(target: str, directory: str, version: str) -> Any:
    """Returns the agent. Raises whatever its module raises on import."""
    sys.path.insert(0, directory)
    module, _, attribute = target.partition(":")
    found: Any = importlib.import_module(module)
    if "sevenfold" in sys.modules:
        own = getattr(sys.modules["sevenfold"], "__version__", "none")
        if own.split(".")[:2] != version.split(".")[:2]:
            raise ImportError(f"the agent's environment has sevenfold {own}, the worker {version}: install the same")
    for part in attribute.split("."):
        found = getattr(found, part)
    if inspect.isclass(found):
        found = found()
    if not callable(found) and not callable(getattr(found, "run", None)):
        raise TypeError(f"{target} is neither callable nor an agent with `run`")
    return found


def build_arguments(call: dict[str, Any], durable: Any) -> tuple[Any, Any]:
    """Returns the request and the context, of Sevenfold's own types if the agent has imported them."""
    sevenfold = sys.modules.get("sevenfold")
    context = child_durable.Context(call, durable)
    if sevenfold is None:
        return SimpleNamespace(**call["request"]), context
    own = sevenfold.AgentContext(
        deadline=context.deadline,
        request_id=context.request_id,
        traceparent=context.traceparent,
        tenant=context.tenant,
        durable=durable,
        loop=context.loop,
    )
    return sevenfold.AgentRequest(**call["request"]), own


def to_event(value: Any) -> dict[str, Any]:
    """Returns the event of what an agent yields: of Sevenfold's classes by their names, of text, or of an answer."""
    kind = _EVENTS.get(type(value).__name__) if hasattr(value, "model_dump") else None
    if kind is not None:
        return {"kind": kind, "value": value.model_dump(mode="json")}
    if isinstance(value, str):
        return {"kind": "delta", "value": {"text": value}}
    return to_answer(value)


def to_answer(value: Any) -> dict[str, Any]:
    """Returns the event of what an agent returns."""
    if hasattr(value, "model_dump"):
        is_reply = type(value).__name__ == "Reply"
        return {"kind": "reply" if is_reply else "answer", "value": value.model_dump(mode="json")}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    return {"kind": "answer", "value": value}


def takes_context(function: Any) -> bool:
    """Whether the agent takes the context beside the request."""
    parameters = inspect.signature(function).parameters.values()
    return len([one for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]) >= 2


async def answer(agent: Any, call: dict[str, Any], send: Sender, context_of: list[Any]) -> None:
    """Runs the agent and sends its events. The context is appended to `context_of`."""
    function = agent if callable(agent) and not inspect.isasyncgenfunction(getattr(agent, "run", None)) else agent.run
    request, context = build_arguments(call, child_durable.DurableProxy(send))
    context_of.append(context)
    arguments = (request, context) if takes_context(function) else (request,)
    body = function if inspect.isroutine(function) else type(function).__call__
    if inspect.isasyncgenfunction(body):
        async for event in function(*arguments):
            send(to_event(event))
            await send.wait_for_room()
        return
    if inspect.iscoroutinefunction(body):
        send(to_answer(await function(*arguments)))
        return
    await asyncio.get_running_loop().run_in_executor(None, answer_in_thread, function, arguments, send)


def answer_in_thread(function: Any, arguments: tuple[Any, ...], send: Sender) -> None:
    """Runs a plain function or generator; `send` may be called from its thread."""
    try:
        found = function(*arguments)
        if not inspect.isgenerator(found):
            send(to_answer(found))
            return
        while True:
            try:
                event = next(found)
            except StopIteration as end:
                if end.value is not None:
                    send(to_answer(end.value))
                return
            send(to_event(event))
    except StopIteration as error:  # A future cannot carry it.
        raise RuntimeError("StopIteration") from error


def describe(error: BaseException) -> dict[str, Any]:
    """Returns what the worker needs to raise the same error."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename != __file__ and "/asyncio/" not in frame.filename]
    try:
        text = str(error)
    except BaseException:  # An exception's `__str__` is agent code too.
        text = "(the text of this exception cannot be read)"
    described: dict[str, Any] = {
        "type": type(error).__name__,
        "bases": [one.__name__ for one in type(error).__mro__],
        "text": text[:4_000].encode("utf-8", "replace").decode(),
        "place": f"{os.path.basename(own[-1].filename)}:{own[-1].lineno}" if own else "",
        "traceback": "".join(traceback.format_exception(type(error), error, error.__traceback__))[-_MAX_TRACEBACK:],
    }
    if isinstance(getattr(error, "code", None), str):
        for name in ("code", "detail", "pointer", "retry_after"):
            value = getattr(error, name, None)
            described[name] = value if isinstance(value, (str, int, float)) else None
    return described


class Sender:
    """Sends frames, from the event loop's thread and from those of plain functions, in order."""

    def __init__(self, writer: asyncio.StreamWriter, loop: asyncio.AbstractEventLoop) -> None:
        self._writer = writer
        self._loop = loop

    def __call__(self, event: dict[str, Any]) -> None:
        self.send_frame({"event": event})

    def send_frame(self, frame: dict[str, Any]) -> None:
        """Sends a frame that is not the last. Raises ValueError and TypeError for what is not JSON."""
        data = json.dumps(frame, allow_nan=False).encode()
        if threading.current_thread() is not threading.main_thread():
            while self._writer.transport.get_write_buffer_size() > _MAX_UNSENT_BYTES:
                time.sleep(0.01)
        self._loop.call_soon_threadsafe(self._writer.write, struct.pack(">I", len(data)) + data)

    async def wait_for_room(self) -> None:
        """Returns when the worker has read most of what was sent."""
        await asyncio.sleep(0)  # The event is written by then.
        await self._writer.drain()

    async def end(self, frame: dict[str, Any]) -> None:
        """Sends the last frame of a call."""
        await asyncio.sleep(0)  # What was sent before goes first.
        data = json.dumps(frame).encode()
        self._writer.write(struct.pack(">I", len(data)) + data)
        await self._writer.drain()


def dispatch_frame(context_of: list[Any], frame: dict[str, Any], running: asyncio.Task[None]) -> None:
    """Passes a frame to the call that runs: an answer, or its cancellation."""
    for context in context_of:
        if "durable" in frame:
            context.durable.receive(frame["durable"])
        else:
            context.cancelled.set()
    if "cancel" in frame:
        running.cancel()


async def serve(agent: Any, descriptor: int) -> None:
    """Answers calls until the worker closes the socket."""
    reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=descriptor))
    loop = asyncio.get_running_loop()
    send = Sender(writer, loop)

    async def one_call(call: dict[str, Any], context_of: list[Any]) -> None:
        try:
            await answer(agent, call, send, context_of)
        except BaseException as error:
            await send.end({"error": describe(error)})
        else:
            await send.end({"done": True})

    await send.end({"ready": True})
    running: asyncio.Task[None] | None = None
    context_of: list[Any] = []
    while True:
        try:
            (size,) = struct.unpack(">I", await reader.readexactly(4))
            frame = json.loads(await reader.readexactly(size))
        except (asyncio.IncompleteReadError, ConnectionError):
            os._exit(0)
        if "call" in frame:
            context_of = []
            running = loop.create_task(one_call(frame["call"], context_of))
        elif running is not None:
            dispatch_frame(context_of, frame, running)


def end_with_parent(parent: int) -> None:
    """Ends the process when the worker has ended, also while agent code blocks everything else."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(0)


def limit_memory(megabytes: int) -> None:
    """Limits what the process may allocate: beyond it the agent gets a MemoryError."""
    import resource

    size = megabytes * 1_000_000
    resource.setrlimit(resource.RLIMIT_DATA, (size, size))


def main() -> None:
    """Loads the agent, and serves it if there is a descriptor."""
    descriptor, parent, version, directory, target, memory = sys.argv[1:]
    if int(memory):
        limit_memory(int(memory))
    agent = load(target, directory, version)
    if descriptor == "-":
        return
    threading.Thread(target=end_with_parent, args=(int(parent),), daemon=True).start()
    asyncio.run(serve(agent, int(descriptor)))


if __name__ == "__main__":
    main()
