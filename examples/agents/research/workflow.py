"""An agent that is a Temporal workflow of its own. It knows nothing of Sevenfold but what goes in and out."""

import asyncio
from datetime import timedelta
from typing import Any

from temporalio import activity, workflow


@activity.defn
async def look_up(question: str) -> str:
    """A step that takes a while; here one would ask a search engine, or a model."""
    await asyncio.sleep(0.5)
    return f"{question}: {len(question.split())} words were looked up."


@workflow.defn
class Research:
    """Takes Sevenfold's request, returns `{response, data}`, and signals its progress to its parent."""

    @workflow.run
    async def run(self, request: dict[str, Any]) -> dict[str, Any]:
        """Asks three questions, one after the other."""
        subject = request["query"] or request["task"]
        questions = [f"What is {subject}", f"Who needs {subject}", f"What comes after {subject}"]
        found = []
        for number, question in enumerate(questions, 1):
            found.append(
                await workflow.execute_activity(look_up, question, start_to_close_timeout=timedelta(seconds=30))
            )
            await self._report_progress(100 * number / len(questions), question)
        return {"response": "\n".join(found), "confidence": 0.8, "data": {"sources": len(found)}}

    async def _report_progress(self, percent: float, note: str) -> None:
        parent = workflow.info().parent
        if parent is not None:
            handle = workflow.get_external_workflow_handle(parent.workflow_id)
            await handle.signal("progress", {"percent": percent, "note": note})
