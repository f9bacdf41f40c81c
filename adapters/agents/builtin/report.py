"""The built-in agent's `generate_report`: sections computed from the given numbers, records and texts."""

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from pydantic import JsonValue

from sevenfold.adapters.agents.builtin.sentiment import NO_TEXT, NOT_ENGLISH, Sentiment, judge
from sevenfold.adapters.agents.builtin.text import enumerate_words, key_terms, quantity, sentences, summarize
from sevenfold.adapters.agents.json_input import InputScope, clean, number, one_line, show
from sevenfold.contracts.agents.errors import AgentRejected
from sevenfold.contracts.agents.interface import AgentRequest, Reply
from sevenfold.contracts.agents.model_requests import without_model_options
from sevenfold.contracts.payload import JsonObject

# The most lines that people would read. A section states how many more there were.
_MAX_LINES = 40
_MAX_COLUMNS = 20
_MIN_WORDS = 4
_MAX_LABEL = 80
# A column with more distinct values is a list of names, not of categories.
_MAX_CATEGORIES = 12
_TITLES = ("title", "reportTitle")


@dataclass
class _Material:
    """The values of a request, by their dotted paths."""

    figures: dict[str, float] = field(default_factory=dict)
    changes: dict[str, tuple[float, float]] = field(default_factory=dict)
    series: dict[str, list[float]] = field(default_factory=dict)
    tables: dict[str, list[JsonObject]] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Section:
    heading: str
    lines: list[str]

    def to_json(self) -> JsonObject:
        return {"heading": self.heading, "lines": [*self.lines]}


def generate_report(request: AgentRequest) -> Reply:
    """Returns a report with a section for each kind of material in `data` and `params`; `title` names it.

    Figures are single numbers (an object of `current` and `previous` is a change), series are lists of numbers,
    records are lists of objects, texts are strings of four words or more. Rejects a request without any of `data` and
    `params`.
    """
    scope = InputScope.from_request(request)
    given: JsonObject = {**without_model_options(request.params), **request.data}
    if not given:
        raise AgentRejected("There is nothing to report on: /data and /params are empty.", pointer="/data")
    title = scope.word(*_TITLES) or _default_title(scope)
    material = _sort({key: value for key, value in given.items() if key not in _TITLES})
    sections = [section for section in _sections(material) if section.lines]
    basis = {
        "figures": len(material.figures) + len(material.changes),
        "series": len(material.series),
        "records": sum(map(len, material.tables.values())),
        "texts": len(material.texts),
    }
    overview = _Section("Overview", [_describe_basis(basis)])
    data: JsonObject = {
        "title": title,
        "sections": [section.to_json() for section in (overview, *sections)],
        "basis": {**basis},
    }
    return Reply(response=_render(title, [overview, *sections]), confidence=_confidence(basis), data=data)


def _default_title(scope: InputScope) -> str:
    kind, period = scope.word("type", "reportType", "name"), scope.word("period", "month", "week", "date")
    return " ".join(
        part for part in (kind and kind.capitalize(), "report", period and f"for {period}") if part
    ).strip()


def _describe_basis(basis: dict[str, int]) -> str:
    parts = [quantity(count, *nouns) for count, nouns in zip(basis.values(), _NOUNS, strict=True) if count]
    if not parts:
        return "No figures, records or texts were given, so there is nothing to compute."
    return f"This report rests on {enumerate_words(parts)}."


_NOUNS = (("figure",), ("series", "series"), ("record",), ("text",))


def _confidence(basis: dict[str, int]) -> float:
    """Returns the confidence: the arithmetic is exact, and its meaning is more certain with more data."""
    count = sum(basis.values())
    return round(0.5 + 0.45 * min(1.0, count / 20), 2) if count else 0.0


def _render(title: str, sections: Sequence[_Section]) -> str:
    blocks = [f"{section.heading}\n" + "\n".join(f"- {line}" for line in section.lines) for section in sections]
    return "\n\n".join([title[0].upper() + title[1:], *blocks])


def _sort(given: JsonObject) -> _Material:
    """Walks the request and sorts each value by its kind."""
    material = _Material()
    pending: list[tuple[str, JsonValue]] = [("", given)]
    while pending:
        path, value = pending.pop()
        if isinstance(value, dict):
            change = _change(value)
            if change is not None:
                material.changes[path] = change
            else:
                pending.extend((_below(path, key), child) for key, child in reversed(value.items()))
        elif isinstance(value, list):
            pending.extend(reversed(_sort_list(material, path, value)))
        else:
            _sort_scalar(material, path, value)
    return material


def _below(path: str, key: str) -> str:
    name = one_line(key, 40) or "?"
    return (f"{path}.{name}" if path else name)[-_MAX_LABEL:]


def _change(value: JsonObject) -> tuple[float, float] | None:
    previous, current = number(value.get("previous")), number(value.get("current"))
    return None if previous is None or current is None else (previous, current)


def _sort_list(material: _Material, path: str, values: list[JsonValue]) -> list[tuple[str, JsonValue]]:
    """Classifies the list as a whole, and returns the items that need a closer look."""
    numbers = [amount for value in values if not isinstance(value, str) and (amount := number(value)) is not None]
    if len(values) >= 2 and len(numbers) == len(values):
        material.series[path] = numbers
        return []
    rows = [value for value in values if isinstance(value, dict)]
    if rows:
        material.tables[path] = rows
        for row in rows:
            material.texts += [clean(cell) for cell in row.values() if isinstance(cell, str) and _is_text(cell)]
    return [(path, value) for value in values if not isinstance(value, dict)]


def _sort_scalar(material: _Material, path: str, value: JsonValue) -> None:
    if isinstance(value, str):
        if _is_text(value):
            material.texts.append(clean(value))
        elif value.strip():
            material.labels.setdefault(path, one_line(value, _MAX_LABEL))
    elif (amount := number(value)) is not None:
        material.figures[path] = amount


def _is_text(value: str) -> bool:
    return len(value.split(None, _MIN_WORDS)) >= _MIN_WORDS


def _sections(material: _Material) -> list[_Section]:
    figures = [f"{path}: {show(value)}" for path, value in material.figures.items()]
    changes = [f"{path}: {_describe_change(*change)}" for path, change in material.changes.items()]
    series = [f"{path}: {_describe_series(values)}" for path, values in material.series.items()]
    records = [line for path, rows in material.tables.items() for line in _describe_table(path, rows)]
    labels = [f"{path}: {value}" for path, value in material.labels.items()]
    return [
        _Section("Figures", _cut(changes + figures)),
        _Section("Series", _cut(series)),
        _Section("Records", _cut(records)),
        _Section("Texts", _describe_texts(material.texts)),
        _Section("Parameters", _cut(labels)),
    ]


def _cut(lines: list[str]) -> list[str]:
    more = len(lines) - _MAX_LINES
    return [*lines[:_MAX_LINES], f"and {more:,} more"] if more > 0 else lines


def _describe_change(previous: float, current: float) -> str:
    change = current - previous
    if change == 0:
        return f"{show(current)}, unchanged"
    share = f" ({change / abs(previous):+.1%})" if previous else ""
    return f"{show(current)}, {'up' if change > 0 else 'down'} from {show(previous)}{share}"


def _describe_series(values: Sequence[float]) -> str:
    mean, median = sum(values) / len(values), statistics.median(values)
    return (
        f"{quantity(len(values), 'value')} from {show(min(values))} to {show(max(values))}, mean {show(mean)}, "
        f"median {show(median)}; last {_describe_change(values[0], values[-1])}"
    )


def _describe_table(path: str, rows: Sequence[JsonObject]) -> list[str]:
    name = path or "records"
    lines = [f"{name}: {quantity(len(rows), 'record')}"]
    columns = dict.fromkeys(key for row in rows for key in row)
    for column in list(columns)[:_MAX_COLUMNS]:
        description = _describe_column([row[column] for row in rows if column in row])
        if description:
            lines.append(f"{_below(name, column)}: {description}")
    more = len(columns) - _MAX_COLUMNS
    return [*lines, f"{name}: {quantity(more, 'more column')} not shown"] if more > 0 else lines


def _describe_column(cells: Sequence[JsonValue]) -> str:
    numbers = [amount for cell in cells if (amount := number(cell)) is not None]
    if numbers and len(numbers) >= len(cells) / 2:
        mean = sum(numbers) / len(numbers)
        return f"total {show(sum(numbers))}, mean {show(mean)}, from {show(min(numbers))} to {show(max(numbers))}"
    names = Counter(one_line(cell, 40) for cell in cells if isinstance(cell, str) and not _is_text(cell))
    if not names or len(names) > _MAX_CATEGORIES or len(names) == len(cells) > 1:
        return ""
    return ", ".join(f"{name} {count:,}" for name, count in names.most_common(5))


def _describe_texts(texts: Sequence[str]) -> list[str]:
    found = [sentence for text in texts for sentence in sentences(text)]
    sentiment = judge(found)
    if sentiment is NO_TEXT:
        return []
    terms = key_terms(found)
    lines = [f"{quantity(len(texts), 'text')}, {quantity(sentiment.words, 'word')}", _describe_tone(sentiment)]
    lines += [f"Key terms: {enumerate_words(terms)}"] if terms else []
    return [*lines, f"In short: {' '.join(summarize(found, 2))}"]


def _describe_tone(sentiment: Sentiment) -> str:
    if not sentiment.english:
        return NOT_ENGLISH
    leaning = f"{quantity(sentiment.positive, 'sentence')} positive, {sentiment.negative} negative"
    return f"Tone: {sentiment.label} (score {sentiment.score:z.2f}; {leaning})"
