"""The built-in agent's `query`: analyzes the text of a query and its context without a model."""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from pydantic import JsonValue

from sevenfold.adapters.agents.builtin.sentiment import NOT_ENGLISH, UNKNOWN, Sentiment, judge
from sevenfold.adapters.agents.builtin.text import (
    enumerate_words,
    key_terms,
    pieces,
    quantity,
    sentences,
    word_set,
    words,
)
from sevenfold.adapters.agents.json_input import FoundText, clean, identifier, number, one_line, show, texts_in
from sevenfold.contracts.agents.errors import AgentRejected
from sevenfold.contracts.agents.interface import AgentRequest, Reply
from sevenfold.contracts.payload import JsonObject

# A query that starts with one of these is an instruction; its subject follows a colon, or is elsewhere.
_INSTRUCTIONS = word_set(
    """analyse analyze assess check classify compare describe evaluate examine explain extract find give inspect
    judge list look rate read report review score show summarise summarize tell"""
)
_SUBJECTS = re.compile(r"\b(feedback|review|complaint|message|email|ticket|conversation|document|comment)s?\b", re.I)
_AFTER_COLON = re.compile(r":\s|\n")
_QUOTED = re.compile(r'["\u201c]([^"\u201c\u201d]{3,})["\u201d]')
# Shorter strings of the context are ids, names and states.
_MIN_WORDS = 3
_MAX_SOURCES = 20

# "don't want to cancel"; "not urgent".
_NEGATED_INTENT = re.compile(r"(?:\b(?:not|never|no|without)|n['\u2019]t)\s(?:\w+\s){0,2}$", re.IGNORECASE)
_NEGATED = re.compile(r"(?:\b(?:not|never|no|without)|n['\u2019]t)\s$", re.IGNORECASE)
_LOOK_BACK = 24


def _phrases(*alternatives: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{'|'.join(alternatives)})\b", re.IGNORECASE)


_CHURN = _phrases(
    "cancel(?:l?ed|l?ing|lation)?", "unsubscribe", "clos(?:e|ing) (?:my|our|the) account", "competitors?",
    "switch(?:ed|ing)? (?:to|away|over|provider)", "refund(?:ed|s)?", "money back", "not renew(?:ing)?",
    "won['\u2019]t renew", "alternatives?", "last straw", "fed up", "never again", "leaving", "terminate",
    "downgrad(?:e|ing)", "waste of (?:money|time)", "moving (?:on|away|to)",
)  # fmt: skip
_URGENCY = _phrases(
    "urgent(?:ly)?", "asap", "as soon as possible", "immediately", "right (?:now|away)", "emergency", "critical",
    "(?:is|are|went|goes) down", "outages?", "deadline", "escalat(?:e|ed|ion)", "blocked", "production",
    "by (?:today|tomorrow|tonight)",
)  # fmt: skip


class _Fact(NamedTuple):
    """A number of the context that indicates customer risk if `is_alarming`."""

    describe: Callable[[float], str]
    is_alarming: Callable[[float], bool]


def _counted(noun: str, alarming_from: float) -> _Fact:
    return _Fact(
        lambda value: f"{show(value)} {noun if value == 1 else noun + 's'}", lambda value: value >= alarming_from
    )


# By the context's keys in lower case, without dashes and underscores.
_FACTS: dict[str, _Fact] = {
    "previousinteractions": _counted("previous interaction", 10),
    "interactions": _counted("previous interaction", 10),
    "opentickets": _counted("open ticket", 3),
    "complaints": _counted("earlier complaint", 2),
    "dayssincelastlogin": _Fact(lambda days: f"last login {show(days)} days ago", lambda days: days >= 30),
    "daysinactive": _Fact(lambda days: f"inactive for {show(days)} days", lambda days: days >= 30),
    "latepayments": _counted("late payment", 2),
    "rating": _Fact(lambda stars: f"a rating of {show(stars)}", lambda stars: stars <= 2),
    "nps": _Fact(lambda points: f"an NPS answer of {show(points)}", lambda points: points <= 6),
    "npsscore": _Fact(lambda points: f"an NPS answer of {show(points)}", lambda points: points <= 6),
    "tenuremonths": _Fact(lambda months: f"a customer for {show(months)} months", lambda _: False),
}


class _Findings(NamedTuple):
    sources: list[FoundText]
    sentences: list[str]
    sentiment: Sentiment
    terms: list[str]
    churn: list[str]
    urgency: list[str]
    facts: list[str]
    alarming_count: int


def answer_query(request: AgentRequest) -> Reply:
    """Returns sentiment, terms, churn and urgency signals of the query and its context, with a confidence.

    Rejects a request without a query and without any text or number in `context` and `data`.
    """
    query = clean(request.query or "").strip()
    if not query and not request.context and not request.data:
        raise AgentRejected("There is no query to answer: /query is missing.", pointer="/query")
    found = _collect_findings(query, request)
    risk = _risk(found)
    data: JsonObject = {
        "sentiment": found.sentiment.to_json(),
        "keyTerms": [*found.terms],
        "signals": {"churn": [*found.churn], "urgency": [*found.urgency]},
        "churnRisk": risk,
        "facts": [*found.facts],
        "evidence": {
            "words": found.sentiment.words,
            "sentences": len(found.sentences),
            "sources": [source.pointer for source in found.sources[:_MAX_SOURCES]],
        },
    }
    return Reply(response=_describe(query, request, found, risk), confidence=_confidence(found), data=data)


def _collect_findings(query: str, request: AgentRequest) -> _Findings:
    own = _evidence_in(query)
    sources = [FoundText(own, "/query")] if own else []
    sources += texts_in(request.context, "/context", _MIN_WORDS)
    sources += texts_in(request.data, "/data", _MIN_WORDS)
    statements = [sentence for source in sources for sentence in sentences(source.text)]
    facts, alarming = _facts({**request.data, **request.context})
    return _Findings(
        sources=sources,
        sentences=statements,
        sentiment=judge(statements),
        terms=key_terms(statements),
        churn=_signals(_CHURN, _NEGATED_INTENT, statements),
        urgency=_signals(_URGENCY, _NEGATED, statements),
        facts=facts,
        alarming_count=alarming,
    )


def _evidence_in(query: str) -> str:
    """Returns the part of the query to analyze: all of it, or what follows or is quoted in an instruction."""
    first = next((word for word in words(query[:200].casefold()) if word != "please"), "")
    if first not in _INSTRUCTIONS:
        return query
    if colon := _AFTER_COLON.search(query):
        return query[colon.end() :].strip()
    if quoted := _QUOTED.search(query):
        return quoted.group(1).strip()
    return "".join(pieces(query)[1:]).strip()


def _signals(phrases: re.Pattern[str], negation: re.Pattern[str], statements: Sequence[str]) -> list[str]:
    """Returns the distinct phrases that occur without a negation just before, as written first."""
    found: dict[str, str] = {}
    for sentence in statements:
        for match in phrases.finditer(sentence):
            before = sentence[max(0, match.start() - _LOOK_BACK) : match.start()]
            if not negation.search(before):
                found.setdefault(match.group().casefold(), match.group())
    return list(found.values())


def _facts(context: JsonObject) -> tuple[list[str], int]:
    descriptions: list[str] = []
    alarming = 0
    for key, value in context.items():
        fact = _FACTS.get(key[:40].casefold().replace("_", "").replace("-", ""))
        amount = number(value)
        if fact is not None and amount is not None and amount >= 0:
            descriptions.append(fact.describe(amount))
            alarming += fact.is_alarming(amount)
    return descriptions, alarming


def _risk(found: _Findings) -> str:
    """Returns none, low, medium or high; unknown without a usable text and without an alarming number."""
    score = found.sentiment.score
    if found.sentiment.label == UNKNOWN and not found.churn and not found.alarming_count:
        return "unknown"
    mood = 2 if score <= -0.3 else 1 if score <= -0.05 else -2 if score >= 0.3 else 0
    points = min(5, 2 * len(found.churn)) + mood + found.alarming_count
    return "high" if points >= 5 else "medium" if points >= 3 else "low" if points >= 1 else "none"


def _confidence(found: _Findings) -> float:
    """Returns the confidence that the text supports; without a usable text it is low, and a little higher with
    numbers.
    """
    signals = len(found.churn) + len(found.urgency) + found.alarming_count
    if found.sentiment.label == UNKNOWN or _is_question(found):
        return round(0.05 + min(0.15, 0.05 * len(found.facts)), 2)
    return round(min(0.95, found.sentiment.confidence + 0.02 * min(5, signals)), 2)


def _is_question(found: _Findings) -> bool:
    """Whether the request is only a question without sentiment, which this agent cannot answer."""
    asks = [source.pointer for source in found.sources] == ["/query"] and found.sources[0].text.endswith("?")
    return asks and found.sentiment.strongest is None and not found.churn


def _describe(query: str, request: AgentRequest, found: _Findings, risk: str) -> str:
    subject = ", ".join(part for part in (_subject(request.context), *found.facts) if part)
    lead = f"{subject}: " if subject else ""
    if not found.sources:
        named = _SUBJECTS.search(query[:1000])
        noun = f"{named.group(1).casefold()} text" if named else "text"
        parts = [f"{lead}no {noun} was given, so there is no mood or signal to judge."]
        if found.alarming_count:
            parts.append(f"By the numbers alone the churn risk is {risk}.")
        parts.append("Send the text in the context or after a colon in the query.")
    elif _is_question(found):
        parts = [f"{lead}this is a question, and this agent analyses texts: it does not know answers."]
        parts += _describe_signals(found, risk)
    else:
        parts = [lead + _describe_mood(found), *_describe_signals(found, risk)]
    text = " ".join(parts)
    return text[0].upper() + text[1:]


def _subject(context: JsonObject) -> str:
    customer: JsonValue = context.get("customer")
    nested = customer if isinstance(customer, dict) else {}
    places = [context.get("customerId"), context.get("customer_id"), nested.get("id"), nested.get("name"), customer]
    name = next((name for value in places if (name := identifier(value)) is not None), None)
    return "" if name is None else f"Customer {one_line(str(name), 60)}"


def _describe_mood(found: _Findings) -> str:
    sentiment = found.sentiment
    size = f"{quantity(sentiment.words, 'word')} in {quantity(len(found.sentences), 'sentence')}"
    if sentiment.label == UNKNOWN:
        return f"{size} are too few to judge the tone."
    tone = f"the tone is {sentiment.label} (score {sentiment.score:z.2f}, from {size})."
    if sentiment.positive and sentiment.negative:
        tone += f" It is mixed: {sentiment.positive} positive, {sentiment.negative} negative."
    return tone


def _describe_signals(found: _Findings, risk: str) -> list[str]:
    parts = []
    if found.sentiment.strongest is not None:
        parts.append(f"The strongest statement: “{one_line(found.sentiment.strongest, 160).rstrip('.')}”.")
    if found.terms:
        parts.append(f"Key terms: {enumerate_words(found.terms[:5])}.")
    if found.churn or risk not in ("none", "unknown"):
        why = f": “{'”, “'.join(found.churn[:5])}”" if found.churn else ""
        parts.append(f"Signs of churn risk ({risk}){why}.")
    if found.urgency:
        parts.append(f"It is urgent by its words: “{'”, “'.join(found.urgency[:5])}”.")
    if not found.sentiment.english:
        parts.append(NOT_ENGLISH)
    return parts
