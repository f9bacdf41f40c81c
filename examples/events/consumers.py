"""Systems that react to events. Each does one thing and returns what it did; replace them with calls to yours.

A reaction may be asked for twice, as after a crash: `request.run_id` is the same then, and an action that is known
under it is not taken again.
"""

import json
from pathlib import Path

from sevenfold import AgentRequest

# Where the examples keep what they did, beside where Sevenfold was started.
ACTIONS = Path("actions.jsonl")


def update_crm(request: AgentRequest) -> str:
    """The customer's record gets its segment."""
    customer = request.data
    _act(request, "crm", {"customerId": customer.get("customerId"), "segment": customer.get("segment")})
    return f"Customer {customer.get('customerId')} is in segment {customer.get('segment')}."


def trigger_campaign(request: AgentRequest) -> str:
    """A welcome that fits the segment."""
    campaign = f"welcome-{request.data.get('segment')}"
    _act(request, "marketing", {"to": request.data.get("email"), "campaign": campaign})
    return f"Campaign {campaign} begins."


def block_transaction(request: AgentRequest) -> str:
    """The money stays where it is."""
    _act(request, "payments", {"blocked": request.data.get("transactionId")})
    return f"Transaction {request.data.get('transactionId')} is blocked."


def notify_team(request: AgentRequest) -> str:
    """Somebody has a look."""
    _act(request, "team", {"transactionId": request.data.get("transactionId"), "score": request.data.get("score")})
    return "The team is notified."


def log_for_review(request: AgentRequest) -> str:
    """With the reasons."""
    _act(request, "audit", {"transactionId": request.data.get("transactionId"), "why": request.data.get("reasons")})
    return "It is written down."


def _act(request: AgentRequest, system: str, action: dict[str, object]) -> None:
    known = ACTIONS.read_text(encoding="utf-8").splitlines() if ACTIONS.exists() else []
    if not any(json.loads(line)["id"] == request.run_id for line in known):
        line = json.dumps({"id": request.run_id, "system": system, **action}, ensure_ascii=False)
        with ACTIONS.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")
