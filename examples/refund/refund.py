"""Refunds an order: looks it up, asks a person if it is dear, and pays once, whatever happens meanwhile."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

from sevenfold import AgentContext, AgentRequest, Declined, Delta, Expired, Reply

ORDERS = {"4711": {"customer": "Ada", "amount": 120}, "4712": {"customer": "Grace", "amount": 20}}
PAYMENTS = Path("payments.log")


def find_order(number: str) -> dict[str, object]:
    """Yours asks a database."""
    return {"number": number, **ORDERS[number]}


def pay(amount: int, idempotency_key: str) -> str:
    """Yours calls a bank, with the key: it is the same each time that this step is tried."""
    with PAYMENTS.open("a", encoding="utf-8") as file:
        file.write(f"{amount} {idempotency_key}\n")
    return f"receipt-{idempotency_key}"


async def refund(request: AgentRequest, context: AgentContext) -> AsyncIterator[Delta | Reply]:
    """The steps are executed once per run; while it waits for the person, there is no process that waits."""
    order = await context.step("find-order", find_order, str(request.data["order"]))
    yield Delta(text=f"Order {order['number']} of {order['customer']}. ")
    if order["amount"] > 100:
        question = f"Refund {order['amount']} € to {order['customer']}?"
        try:
            approved = await context.ask(question, id="approve", expires_in=timedelta(days=2))
        except (Declined, Expired):
            approved = False
        if not approved:
            yield Reply(response="The refund was declined.", data={"refunded": False})
            return
    receipt = await context.step("pay", pay, order["amount"])
    yield Reply(response=f"Refunded {order['amount']} €.", data={"refunded": True, "receipt": receipt})
