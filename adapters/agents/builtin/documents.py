"""The built-in agent's tasks about documents: `analyze_sentiment`, `summarize`, `analyze_document`."""

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

from pydantic import JsonValue

from sevenfold.adapters.agents.builtin.sentiment import NO_TEXT, NOT_ENGLISH, UNKNOWN, Sentiment, judge
from sevenfold.adapters.agents.builtin.text import (
    enumerate_words,
    key_terms,
    quantity,
    sentences,
    summarize,
    words,
)
from sevenfold.adapters.agents.json_input import (
    TEXT_FIELDS,
    Found,
    FoundText,
    InputScope,
    clean,
    identifier,
    one_line,
)
from sevenfold.contracts.agents.errors import AgentRejected
from sevenfold.contracts.agents.interface import AgentRequest, Reply
from sevenfold.contracts.payload import JsonObject

_LISTS = ("documents", "items", "texts")
_ID_LISTS = ("documentIds", "ids")
_WORDS_PER_MINUTE = 230
_MAX_TITLE = 120
_URL = re.compile(r"\s*https?://\S+\s*", re.IGNORECASE)


class _Item(NamedTuple):
    """One of several documents: by its id if it has one, else by its position."""

    id: str | int | None
    text: str | None


def analyze_sentiment(request: AgentRequest) -> Reply:
    """Scores `text`, or each of `documents`, `items`, `texts` or `documentIds`.

    An item is a string, or an object with an `id` and a text. Ids alone are looked up in `documents`; this agent has
    no document store, so an id without a text is `unknown` with score 0.
    """
    scope = InputScope.from_request(request)
    items = _items(scope)
    judged = [judge(sentences(item.text)) if item.text else NO_TEXT for item in items]
    scores: list[JsonValue] = [
        _scored(i, item, sentiment) for i, (item, sentiment) in enumerate(zip(items, judged, strict=True))
    ]
    confidence = sum(sentiment.confidence for sentiment in judged) / len(judged) if judged else 0.0
    return Reply(response=_describe_scores(judged), confidence=round(confidence, 2), data={"sentimentScores": scores})


def _scored(index: int, item: _Item, sentiment: Sentiment) -> JsonObject:
    name: JsonObject = {"index": index} if item.id is None else {"id": item.id}
    return {**name, "score": sentiment.score, "label": sentiment.label, "confidence": sentiment.confidence}


def _describe_scores(judged: Sequence[Sentiment]) -> str:
    known = [sentiment for sentiment in judged if sentiment.label != UNKNOWN]
    silent = len(judged) - len(known)
    parts = [f"{quantity(len(judged), 'document')}."]
    if known:
        counts = [
            f"{count:,} {word}"
            for word in ("positive", "neutral", "negative")
            if (count := sum(sentiment.label == word for sentiment in known))
        ]
        mean = sum(sentiment.score for sentiment in known) / len(known)
        parts.append(f"{enumerate_words(counts)}; the mean score is {mean:z.2f} on a scale from -1 to 1.")
    if silent:
        parts.append(
            f"Unknown for want of an English text: {silent:,}. This agent keeps no documents: send them as "
            "documents: [{id, text}]."
        )
    return " ".join(parts)


def _items(scope: InputScope) -> list[_Item]:
    ids = scope.find(*_ID_LISTS)
    listed = scope.find(*_LISTS)
    if ids is not None:
        names = [_item_id(value) for value in _as_list(ids)]
        return _matched(names, _listed(listed) if listed else [])
    if listed is not None:
        return _listed(listed)
    single = scope.narrow("document")
    return [_Item(identifier(_value(single, "id", "documentId")), _required_text(scope).text)]


def _matched(names: Sequence[str | int | None], given: Sequence[_Item]) -> list[_Item]:
    """Returns the names with their texts: by id, or by position if the texts have no ids."""
    if given and all(item.id is None for item in given):
        return [_Item(name, given[i].text if i < len(given) else None) for i, name in enumerate(names)]
    texts = {item.id: item.text for item in given if item.id is not None}
    return [_Item(name, texts.get(name) if name is not None else None) for name in names]


def _value(scope: InputScope, *names: str) -> JsonValue:
    found = scope.find(*names)
    return found.value if found is not None else None


def _as_list(found: Found) -> list[JsonValue]:
    if not isinstance(found.value, list):
        raise AgentRejected(f"{found.pointer} must be a list.", pointer=found.pointer)
    return found.value


def _listed(found: Found) -> list[_Item]:
    if isinstance(found.value, dict):
        return [_Item(identifier(key), _extract_text(value)) for key, value in found.value.items()]
    return [
        _Item(_item_id(value) if isinstance(value, dict) else None, _extract_text(value)) for value in _as_list(found)
    ]


def _item_id(value: JsonValue) -> str | int | None:
    if isinstance(value, dict):
        return next((name for key in ("id", "documentId") if (name := identifier(value.get(key))) is not None), None)
    return identifier(value)


def _extract_text(value: JsonValue) -> str | None:
    if isinstance(value, dict):
        value = next((value[name] for name in TEXT_FIELDS if isinstance(value.get(name), str)), None)
    return clean(value) if isinstance(value, str) else None


def _required_text(scope: InputScope) -> FoundText:
    """Returns the request's text, or that of `document` if it is an object. Raises AgentRejected without a word."""
    found = scope.narrow("document").text(*TEXT_FIELDS)
    if found is None:
        raise scope.missing("text", "There is no text to work on")
    if not found.text.strip():
        raise AgentRejected(f"{found.pointer} is empty.", pointer=found.pointer)
    if _URL.fullmatch(found.text):
        raise AgentRejected(
            f"{found.pointer} is only an address: this agent fetches nothing, send the text.", pointer=found.pointer
        )
    return found


def summarize_text(request: AgentRequest) -> Reply:
    """Returns the most significant sentences of `text` (or of all `documents` together): `sentences` of them (3)."""
    scope = InputScope.from_request(request)
    count = int(scope.option("sentences", 3, 1, 50))
    listed = scope.find(*_LISTS)
    texts = [item.text for item in _listed(listed) if item.text] if listed else [_required_text(scope).text]
    found = [sentence for text in texts for sentence in sentences(text)]
    if not found:
        raise scope.missing("text", "There is no text to work on")
    chosen = summarize(found, count)
    return Reply(
        response=" ".join(chosen),
        # The sentences are the author's own; the omitted part is the uncertainty of the choice.
        confidence=round(0.5 + 0.4 * len(chosen) / len(found), 2),
        data={
            "summary": " ".join(chosen),
            "sentences": len(chosen),
            "ofSentences": len(found),
            "keyTerms": [*key_terms(found)],
        },
    )


def analyze_document(request: AgentRequest) -> Reply:
    """Returns title, size, summary, key terms and sentiment of one document, and the fields of its extraction."""
    scope = InputScope.from_request(request)
    text = _required_text(scope).text
    title, body = _title(scope.narrow("document"), text)
    known = _known_fields(scope.narrow("document"))
    found = sentences(body)
    sentiment = judge(found)
    count = len(words(body))
    summary = " ".join(summarize(found, 3))
    terms = key_terms(found)
    data: JsonObject = {
        "title": title,
        **known,
        "words": count,
        "sentences": len(found),
        "characters": len(text),
        "readingMinutes": math.ceil(count / _WORDS_PER_MINUTE),
        "summary": summary,
        "keyTerms": [*terms],
        "sentiment": sentiment.to_json(),
    }
    return Reply(
        response=_describe_document(title, known, count, found, terms, sentiment, summary),
        confidence=sentiment.confidence,
        data=data,
    )


def _known_fields(document: InputScope) -> JsonObject:
    """Returns those of `contentType`, `pages`, `unreadPages` and `truncated` that the document has."""
    counts = {name: int(document.number(name) or 0) for name in ("pages", "unreadPages")}
    known: JsonObject = {name: count for name, count in counts.items() if count > 0}
    content_type = document.word("contentType")
    if content_type is not None:
        known["contentType"] = content_type
    return {**known, "truncated": True} if _value(document, "truncated") is True else known


def _describe_document(
    title: str | None,
    known: JsonObject,
    count: int,
    found: Sequence[str],
    terms: Sequence[str],
    sentiment: Sentiment,
    summary: str,
) -> str:
    name = f"“{title}”" if title else "The document"
    pages = known.get("pages")
    size = f"{quantity(pages, 'page')}, " if isinstance(pages, int) else ""
    parts = [f"{name}: {size}{quantity(count, 'word')} in {quantity(len(found), 'sentence')}."]
    if known.keys() & {"unreadPages", "truncated"}:
        parts.append("Not all of it was read.")
    if terms:
        parts.append(f"It is about {enumerate_words(terms[:5])}.")
    if sentiment.label != UNKNOWN:
        parts.append(f"Its tone is {sentiment.label} (score {sentiment.score:z.2f}).")
    if not sentiment.english:
        parts.append(NOT_ENGLISH)
    return " ".join([*parts, f"In short: {summary}"] if summary else parts)


def _title(scope: InputScope, text: str) -> tuple[str | None, str]:
    """Returns the given title, or a first line that looks like one, and the rest of the text."""
    given = scope.word("title", "name", "subject")
    if given is not None:
        return one_line(given, _MAX_TITLE), text
    first, _, rest = text.lstrip().partition("\n")
    heading = first.strip().lstrip("#").strip()
    looks = 0 < len(heading) <= _MAX_TITLE and len(heading.split()) <= 12
    if looks and rest.strip() and not heading.endswith((".", "!", "?", ",", ";", ":")):
        return one_line(heading, _MAX_TITLE), rest
    return None, text
