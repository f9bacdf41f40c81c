"""The same behind HTTP. Run it by `uvicorn refund_http:app --port 9001`."""

from typing import Any

import httpx
from fastapi import FastAPI, Request
from refund import find_order, pay

app = FastAPI()


@app.post("/run")
async def run(request: Request) -> dict[str, Any]:
    asked = await request.json()
    recorded = {step["key"]: step["result"] for step in asked["steps"]}

    async def step(name: str, function: Any, *args: Any) -> Any:
        """Executes a step, unless it is recorded; what the gateway answers is what counts."""
        if name in recorded:
            return recorded[name]
        body = {"name": name, "result": function(*args), "attempt": asked["attempt"], "turn": asked["turn"]}
        async with httpx.AsyncClient() as http:
            return (await http.post(asked["stepsUrl"], json=body)).raise_for_status().json()["result"]

    order = await step("find-order", find_order, asked["data"]["order"])
    answer = asked["responses"].get("approve")
    if order["amount"] > 100 and answer is None:
        message = f"Refund {order['amount']} € to {order['customer']}?"
        return {"inputRequired": [{"id": "approve", "message": message}]}
    if answer is not None and answer != {"action": "accept", "content": True}:
        return {"response": "The refund was declined.", "data": {"refunded": False}}
    receipt = await step("pay", pay, order["amount"], f"{asked['runId']}-pay")
    return {"response": f"Refunded {order['amount']} €.", "data": {"refunded": True, "receipt": receipt}}
