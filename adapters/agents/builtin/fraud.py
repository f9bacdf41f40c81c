"""The built-in agent's `detect_fraud`: rules over one transaction and its surroundings."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from pydantic import JsonValue

from sevenfold.adapters.agents.builtin.text import enumerate_words, quantity
from sevenfold.adapters.agents.json_input import InputScope, identifier, number, show
from sevenfold.contracts.agents.errors import AgentRejected
from sevenfold.contracts.agents.interface import AgentRequest, Reply
from sevenfold.contracts.payload import JsonObject

_COUNTRIES = ("country", "cardCountry", "billingCountry", "shippingCountry", "ipCountry", "merchantCountry")
_TIMES = ("timestamp", "time", "createdAt", "date")
# Larger epochs are in milliseconds: in seconds this is the year 5138.
_MILLISECONDS_FROM = 1e11


@dataclass(frozen=True)
class _Transaction:
    scope: InputScope
    amount: float
    limit: float
    time: datetime | None
    past: tuple[tuple[float | None, datetime | None], ...]


class _Finding(NamedTuple):
    """A rule's result: its weight in the suspicion, 0 to 1, and the reason."""

    weight: float
    reason: str


_CLEAR = _Finding(0.0, "")


def detect_fraud(request: AgentRequest) -> Reply:
    """A suspicion from 0 to 1, with its reasons; `alert` from `threshold` (0.5) up.

    Reads `data` (or `data.transaction`): amount, timestamp (ISO 8601 or epoch), the countries, `history` (earlier
    transactions), averageAmount, transactionsLastHour, accountAgeDays, failedAttempts, newDevice. A rule without
    its data is named in `notChecked`. `amountLimit` (1000) is what counts as a large amount, in the transaction's
    own currency.
    """
    scope = InputScope.from_request(request).narrow("transaction")
    transaction = _read(scope)
    threshold = scope.option("threshold", 0.5, 0, 1)
    found = {name: rule(transaction) for name, rule in _RULES.items()}
    checked = {name: finding for name, finding in found.items() if finding is not None}
    hits = {name: finding for name, finding in checked.items() if finding.weight > 0}
    # The reasons count as independent evidence: the score is the complement of the remaining innocence.
    score = round(1 - math.prod((1 - finding.weight for finding in hits.values()), start=1.0), 4)
    alert = score >= threshold
    reasons: list[JsonValue] = [
        {"rule": name, "weight": finding.weight, "detail": finding.reason} for name, finding in hits.items()
    ]
    data: JsonObject = {
        "transactionId": _transaction_id(scope),
        "score": score,
        "risk": "high" if score >= 0.6 else "medium" if score >= 0.3 else "low",
        "alert": alert,
        "threshold": threshold,
        "reasons": reasons,
        "checked": [*checked],
        "notChecked": [name for name, finding in found.items() if finding is None],
    }
    return Reply(
        response=_describe(score, alert, [finding.reason for finding in hits.values()], len(checked)),
        confidence=round(0.2 + 0.7 * len(checked) / len(_RULES), 2),
        data=data,
    )


def _describe(score: float, alert: bool, reasons: Sequence[str], checked: int) -> str:
    heading = "Alert" if alert else "No alert"
    lead = f"{heading}: suspicion {score:.2f} after {checked} of {quantity(len(_RULES), 'rule')}."
    return f"{lead} Reasons: {enumerate_words(reasons)}." if reasons else f"{lead} Nothing stands out."


def _read(scope: InputScope) -> _Transaction:
    found = scope.find("amount", "total", "value")
    if found is None:
        raise scope.missing("amount", "There is no transaction to check")
    amount = number(found.value)
    if amount is None:
        raise AgentRejected(f"{found.pointer} must be a number.", pointer=found.pointer)
    past = scope.find("history", "previousTransactions", "recentTransactions")
    entries = past.value if past is not None and isinstance(past.value, list) else []
    return _Transaction(
        scope=scope,
        # A refund is negative; its size counts like a payment's.
        amount=abs(amount),
        limit=scope.option("amountLimit", 1000, 0.01, 1e12),
        time=next((time for name in _TIMES if (time := _time(scope, name)) is not None), None),
        past=tuple(_entry(entry) for entry in entries if isinstance(entry, dict)),
    )


def _entry(entry: JsonObject) -> tuple[float | None, datetime | None]:
    scope = InputScope((("", entry),))
    amount = scope.number("amount", "total", "value")
    time = next((time for name in _TIMES if (time := _time(scope, name)) is not None), None)
    return (abs(amount) if amount is not None else None), time


def _time(scope: InputScope, name: str) -> datetime | None:
    found = scope.find(name)
    return parse_time(found.value) if found is not None else None


def parse_time(value: JsonValue) -> datetime | None:
    """Parses a time from 1970 to 2100 in ISO 8601 (UTC without an offset) or as an epoch in s or ms; else None."""
    try:
        if isinstance(value, str):
            moment = datetime.fromisoformat(value.strip()[:64])
        else:
            epoch = number(value)
            if epoch is None:
                return None
            moment = datetime.fromtimestamp(epoch / 1000 if epoch >= _MILLISECONDS_FROM else epoch, UTC)
    except (ValueError, OverflowError, OSError):
        return None
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return moment if 1970 <= moment.year <= 2100 else None


def _transaction_id(scope: InputScope) -> str | int | None:
    places = (scope.find(name) for name in ("transactionId", "id"))
    return next((name for found in places if found and (name := identifier(found.value)) is not None), None)


def _amount(tx: _Transaction) -> _Finding | None:
    for factor, weight in ((10, 0.55), (1, 0.3)):
        if tx.amount >= factor * tx.limit:
            return _Finding(weight, f"{show(tx.amount)} is at or above {show(factor * tx.limit)}")
    if tx.amount >= 0.95 * tx.limit:
        return _Finding(0.2, f"{show(tx.amount)} stays just below {show(tx.limit)}")
    return _CLEAR


def _unusual_amount(tx: _Transaction) -> _Finding | None:
    amounts = [amount for amount, _ in tx.past if amount is not None]
    usual = tx.scope.number("averageAmount", "typicalAmount")
    if usual is None and len(amounts) >= 3:
        usual = sum(amounts) / len(amounts)
    if usual is None or usual <= 0:
        return None
    ratio = tx.amount / usual
    weight = 0.5 if ratio >= 10 else 0.3 if ratio >= 3 else 0.0
    return _Finding(weight, f"{show(ratio)} times the usual amount") if weight else _CLEAR


def _velocity(tx: _Transaction) -> _Finding | None:
    count = tx.scope.number("transactionsLastHour", "velocity")
    moments = [moment for _, moment in tx.past if moment is not None]
    if count is None and tx.time is not None and moments:
        count = sum(timedelta(0) <= tx.time - moment <= timedelta(hours=1) for moment in moments)
    if count is None:
        return None
    weight = 0.5 if count >= 10 else 0.3 if count >= 5 else 0.0
    return _Finding(weight, f"{show(count)} other transactions within the hour") if weight else _CLEAR


def _country_mismatch(tx: _Transaction) -> _Finding | None:
    named = [country.upper() for name in _COUNTRIES if (country := tx.scope.word(name)) is not None]
    if len(named) < 2:
        return None
    distinct = list(dict.fromkeys(named))
    weight = {1: 0.0, 2: 0.4}.get(len(distinct), 0.55)
    return _Finding(weight, f"the countries differ ({', '.join(distinct)})") if weight else _CLEAR


def _night_hours(tx: _Transaction) -> _Finding | None:
    if tx.time is None:
        return None
    return _Finding(0.15, f"it was made at night ({tx.time:%H:%M})") if tx.time.hour < 5 else _CLEAR


def _round_amount(tx: _Transaction) -> _Finding | None:
    return _Finding(0.1, "the amount is round") if tx.amount >= 100 and tx.amount % 100 == 0 else _CLEAR


def _new_account(tx: _Transaction) -> _Finding | None:
    days = tx.scope.number("accountAgeDays")
    if days is None:
        return None
    weight = 0.35 if days < 1 else 0.2 if days < 7 else 0.0
    return _Finding(weight, f"the account is {show(days)} days old") if weight else _CLEAR


def _failed_attempts(tx: _Transaction) -> _Finding | None:
    count = tx.scope.number("failedAttempts")
    if count is None:
        return None
    weight = 0.35 if count >= 3 else 0.1 if count >= 1 else 0.0
    return _Finding(weight, f"{show(count)} failed attempts came before") if weight else _CLEAR


def _new_device(tx: _Transaction) -> _Finding | None:
    found = tx.scope.find("newDevice")
    if found is None or not isinstance(found.value, bool):
        return None
    return _Finding(0.2, "the device is new") if found.value else _CLEAR


_RULES: dict[str, Callable[[_Transaction], _Finding | None]] = {
    "amount": _amount,
    "unusual_amount": _unusual_amount,
    "velocity": _velocity,
    "country_mismatch": _country_mismatch,
    "night_hours": _night_hours,
    "round_amount": _round_amount,
    "new_account": _new_account,
    "failed_attempts": _failed_attempts,
    "new_device": _new_device,
}
