"""Words, sentences, key terms and extractive summaries. Pure functions, linear in the text's length."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence


def word_set(text: str) -> frozenset[str]:
    """Returns the words of a text: a compact form of long word lists."""
    return frozenset(text.split())


WORD = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*")

# Splits long runs of words (a table, a log, a poem), so that a sentence can be quoted.
_MAX_SENTENCE_WORDS = 60
_MAX_SENTENCE_CHARACTERS = 600
# A shorter line was not wrapped: it is a heading, a list item or the end of a paragraph.
_MIN_WRAPPED_LINE = 50
# Longer words are base64 and the like.
_MAX_TERM = 32

_BULLET = re.compile(r"\s*(?:[-*•]|[0-9]{1,3}[.)])\s")
_IDEOGRAPHIC_END = re.compile(r"([\u3002\uff01\uff1f])")
_CLOSERS = "\"'\u201d\u2019)]»*_"
_ABBREVIATIONS = word_set(
    "mr. mrs. ms. dr. prof. st. vs. e.g. i.e. etc. approx. inc. ltd. co. corp. no. fig. jr. sr."
)
STOPWORDS = word_set(
    """a about above after again against all almost also although always am an and another any are aren't around
    as at away back be because been before being below between both but by came can can't cannot come could
    couldn't did didn't do does doesn't doing don't done down during each either else even ever every few for
    from further get gets getting give given go goes going gone got had hadn't has hasn't have haven't having he
    her here hers herself him himself his how however i i'd i'll i'm i've if in into is isn't it it's its itself
    just keep keeps kept know last least less let like made make makes many may maybe me might mine more most much
    must my myself never next no none nor not nothing now of off often on once one only onto or other our ours
    ourselves out over own per please put quite rather really said same say says see seem seems shall she should
    shouldn't since so some something still such take than thank thanks that that's the their theirs them
    themselves then there there's these they they're thing things this those though through thus to too took two
    under until up upon us use used using very want wants was wasn't way we we're we've well went were weren't
    what when where whether which while who whom whose why will with within without won't would wouldn't yes yet
    you you'd you'll you're you've your yours yourself
    day days time times year years three four five six seven eight nine ten"""
)


_MIN_LANGUAGE_WORDS = 12
_ENGLISH_ONLY = word_set("the and to it that this with for you are have not my they from your but would be very")


def words(text: str) -> list[str]:
    """Returns the words of a text, as written."""
    return WORD.findall(text)


def sentences(text: str) -> list[str]:
    """Returns the sentences of a text, each on one line. Blank lines and list items end a sentence too."""
    found: list[str] = []
    for block in _blocks(_IDEOGRAPHIC_END.sub(r"\1 ", text)):
        current: list[str] = []
        length = 0
        for token in block.split():
            current.append(token)
            length += len(token) + 1
            if _ends_sentence(token) or len(current) >= _MAX_SENTENCE_WORDS or length >= _MAX_SENTENCE_CHARACTERS:
                found.append(" ".join(current))
                current, length = [], 0
        if current:
            found.append(" ".join(current))
    return found


def _blocks(text: str) -> Iterable[str]:
    """Yields the blocks of lines that belong together: paragraphs, headings, list items without their bullets."""
    lines: list[str] = []
    for line in text.splitlines():
        bullet = _BULLET.match(line) if line.strip() else None
        if bullet is not None or not line.strip():
            yield " ".join(lines)
            lines = []
        lines.append(line[bullet.end() :] if bullet is not None else line)
        if len(line) < _MIN_WRAPPED_LINE:
            yield " ".join(lines)
            lines = []
    yield " ".join(lines)


def _ends_sentence(token: str) -> bool:
    bare = token.rstrip(_CLOSERS)
    return bare.endswith((".", "!", "?", "…", "\u3002", "\uff01", "\uff1f")) and bare.casefold() not in _ABBREVIATIONS


def looks_english(found: Sequence[str]) -> bool:
    """Whether words are English, by words that other languages do not share; True for a few words."""
    if len(found) < _MIN_LANGUAGE_WORDS:
        return True
    # In English prose they are about a quarter.
    return sum(word.casefold() in _ENGLISH_ONLY for word in found) / len(found) >= 0.04


def key_terms(found: Sequence[str], limit: int = 8) -> list[str]:
    """Returns the frequent terms of the sentences; a recurring pair counts as one term."""
    singles, pairs = _count_terms(found)
    recurring = {pair: count for pair, count in pairs.items() if count > 1}
    ranked: Counter[str] = Counter(dict(singles))
    for (first, second), count in recurring.items():
        ranked[f"{first} {second}"] = count * 2
        # Occurrences within the pair do not count for its parts.
        ranked[first] -= count
        ranked[second] -= count
    # Counters keep the order of appearance, and sorting is stable: ties go to the earlier term.
    order = sorted((term for term in ranked if ranked[term] > 0), key=lambda term: -ranked[term])
    return order[:limit]


def _count_terms(found: Sequence[str]) -> tuple[Counter[str], Counter[tuple[str, str]]]:
    singles: Counter[str] = Counter()
    pairs: Counter[tuple[str, str]] = Counter()
    for sentence in found:
        previous = None
        for word in words(sentence):
            term = _term(word)
            if term is not None:
                singles[term] += 1
                if previous is not None and previous != term:
                    pairs[previous, term] += 1
            previous = term
    return singles, pairs


def _term(word: str) -> str | None:
    folded = word.casefold().replace("\u2019", "'").removesuffix("'s")
    if not 3 <= len(folded) <= _MAX_TERM or folded in STOPWORDS:
        return None
    return folded


def summarize(found: Sequence[str], count: int) -> list[str]:
    """Returns the sentences with the most frequent terms, in their original order; at most `count`."""
    found = list(dict.fromkeys(found))
    if len(found) <= count:
        return found
    singles, _ = _count_terms(found)
    scores = [_weight(sentence, singles) for sentence in found]
    # Authors state their subject early.
    scores[0] *= 1.25
    best = sorted(range(len(found)), key=lambda i: (-scores[i], i))[:count]
    return [found[i] for i in sorted(best)]


def _weight(sentence: str, singles: Counter[str]) -> float:
    terms = {term for term in map(_term, words(sentence)) if term is not None}
    # Divided by more than the number of terms, or a sentence of one frequent word would rank first.
    weight = sum(singles[term] for term in terms) / (len(terms) + 4)
    # A heading or a table row contains only frequent terms, but no statement.
    return weight if len(terms) >= 4 and _ends_sentence(sentence) else weight / 4


def quantity(count: int, noun: str, plural: str | None = None) -> str:
    """`1 sentence`, `2 sentences`."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def enumerate_words(parts: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join((", ".join(parts[:-1]), parts[-1])) if len(parts) > 1 else "".join(parts)


def pieces(text: str) -> list[str]:
    """Splits the text after its sentences and lines; joined, the pieces are the text again."""
    found: list[str] = []
    start = 0
    for token in re.finditer(r"\S+\s*|\s+", text):
        if "\n" in token.group() or _ends_sentence(token.group().rstrip()):
            found.append(text[start : token.end()])
            start = token.end()
    return [*found, text[start:]] if start < len(text) else found
