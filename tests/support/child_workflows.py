"""A user's workflow that Sevenfold runs as an agent."""

import asyncio
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ApplicationError

# What became of them, by run id: they share the tests' process.
CLEANED_UP: set[str] = set()


@workflow.defn(sandboxed=False)
class Child:
    """Behaves as `params.do` requests."""

    @workflow.run
    async def run(self, request: dict[str, Any]) -> Any:
        do = request["params"].get("do")
        match do:
            case "text":
                return "plain"
            case "echo":
                return {"response": "seen", "data": request}
            case "nonsense":
                return [1, 2]
            case "refuse":
                raise ApplicationError("Not this one.", type="AgentRejected")
            case "fail for good":
                raise ApplicationError("Broken.", type="Own", non_retryable=True)
            case "fail twice" if request["attempt"] <= 2:
                raise ApplicationError("internal-host:9 is away", type="Own")
            case "fail":
                raise ApplicationError("internal-host:9 is away", type="Own")
            case "wait" | "stay" | "spend" | "ask":
                return await getattr(self, f"_{do}")(request)
        usage = {"outputTokens": request["params"].get("usage", 0)}
        return {"response": f"attempt {request['attempt']}", "confidence": 0.5, "usage": usage}

    async def _wait(self, request: dict[str, Any]) -> dict[str, Any]:
        parent = workflow.info().parent
        assert parent is not None
        handle = workflow.get_external_workflow_handle(parent.workflow_id)
        await handle.signal("progress", {"percent": 40, "note": "half of it"})
        try:
            await workflow.sleep(float(request["params"].get("seconds", 60)))
        except asyncio.CancelledError:
            CLEANED_UP.add(request["runId"])
            raise
        return {"response": "waited"}

    async def _spend(self, request: dict[str, Any]) -> dict[str, Any]:
        """Reports 40 tokens every 0.2 s, ten times. With `fails` the first attempt fails after the second report;
        with `fails = "always"` every attempt does.
        """
        parent = workflow.info().parent
        assert parent is not None
        handle = workflow.get_external_workflow_handle(parent.workflow_id)
        try:
            for number in range(1, 11):
                await handle.signal("usage", {"inputTokens": 30 * number, "outputTokens": 10 * number})
                await workflow.sleep(0.2)
                fails = request["params"].get("fails")
                if number == 2 and (fails == "always" or (fails and request["attempt"] == 1)):
                    raise ApplicationError("Away.", type="Own")
        except asyncio.CancelledError:
            CLEANED_UP.add(request["runId"])
            raise
        return {"response": "spent", "usage": {"inputTokens": 300, "outputTokens": 100}}

    @workflow.signal
    def answer(self, answer: dict[str, Any]) -> None:
        """What a person has answered."""
        self._answers.append(answer)

    @workflow.init
    def __init__(self, request: dict[str, Any]) -> None:
        self._answers: list[dict[str, Any]] = []

    async def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Asks a person, and before something that is no question."""
        parent = workflow.info().parent
        assert parent is not None
        handle = workflow.get_external_workflow_handle(parent.workflow_id)
        await handle.signal("ask", {"id": "no id", "message": 7})
        await handle.signal("ask", {"id": "may-i", "message": "May I?"})
        await workflow.wait_condition(lambda: bool(self._answers))
        return {"response": "answered", "data": {"answer": self._answers[0]}}

    async def _stay(self, request: dict[str, Any]) -> dict[str, Any]:
        """Ignores its cancellation."""
        try:
            await workflow.wait_condition(lambda: False)
        except asyncio.CancelledError:
            await workflow.sleep(float(request["params"].get("seconds", 60)))
        return {"response": "stayed"}
