"""The built-in agent: what each task finds, and that nothing a client sends can break it."""

import asyncio
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sevenfold.adapters.agents.builtin.agent import TASKS, BuiltinAgent
from sevenfold.contracts.agents.errors import AgentRejected
from sevenfold.contracts.agents.interface import AgentContext, AgentRequest, Delta, Reply

CONTEXT = AgentContext(deadline=datetime(2100, 1, 1, tzinfo=UTC))
ANGRY = (
    "I have been a customer for three years and this is the last straw. The app crashes every time I open the "
    "invoice page! I want a refund, and I will switch to a competitor if this isn't solved by tomorrow."
)
PARAGRAPH = (
    "Durable queues keep work safe. A queue remembers every job until a worker has finished it. "
    "The weather was mild. When a worker crashes, the queue hands its job to another worker. Lunch was late."
)


async def ask(task: str = "query", **fields) -> Reply:
    events = [event async for event in BuiltinAgent().run(AgentRequest(run_id="r", task=task, **fields), CONTEXT)]
    *pieces, reply = events
    assert isinstance(reply, Reply)
    assert all(isinstance(piece, Delta) and piece.text for piece in pieces)
    assert "".join(piece.text for piece in pieces) == reply.response
    return reply


async def rejection(task: str = "query", **fields) -> AgentRejected:
    with pytest.raises(AgentRejected) as raised:
        await ask(task, **fields)
    return raised.value


async def test_query_without_text_has_low_confidence():
    context = {"customerId": "12345", "previousInteractions": 5}
    reply = await ask(query="Analyze this customer feedback", context=context)
    assert reply.response.startswith("Customer 12345, 5 previous interactions: no feedback text was given")
    assert 0 < reply.confidence < 0.3
    assert reply.data["churnRisk"] == "unknown"


async def test_query_finds_sentiment_churn_and_urgency_in_the_context():
    context = {"customerId": 7, "previousInteractions": 12, "feedback": ANGRY}
    reply = await ask(query="Analyze this customer feedback", context=context)
    assert reply.data["sentiment"]["label"] == "negative"
    assert reply.data["churnRisk"] == "high"
    assert reply.data["signals"] == {
        "churn": ["last straw", "refund", "switch to", "competitor"],
        "urgency": ["by tomorrow"],
    }
    assert reply.data["evidence"]["sources"] == ["/context/feedback"]
    assert "12 previous interactions" in reply.response
    assert reply.confidence > 0.8


@pytest.mark.parametrize(
    "query",
    [
        f"Analyze this: {ANGRY}",
        f"Please analyze this feedback. {ANGRY}",
        f"Summarize\n{ANGRY}",
        f"Rate “{ANGRY}”",
        ANGRY,
    ],
)
async def test_text_may_stand_in_the_query_itself(query):
    reply = await ask(query=query)
    assert reply.data["churnRisk"] == "high"
    assert reply.data["evidence"]["sources"] == ["/query"]


async def test_negated_phrase_is_no_signal():
    reply = await ask(query="Nice and fast. I don't want to cancel, and it is not urgent.")
    assert reply.data["signals"] == {"churn": [], "urgency": []}
    assert reply.data["churnRisk"] == "none"


async def test_short_texts_count_in_fields_that_hold_texts():
    reply = await ask(query="Analyze the feedback", context={"comments": ["Terrible!"], "plan": "pro"})
    assert reply.data["sentiment"]["label"] == "negative"


async def test_a_question_is_not_answered():
    reply = await ask(query="What is the capital of France?")
    assert "does not know answers" in reply.response
    assert reply.confidence < 0.1


@pytest.mark.parametrize(
    "text",
    [
        "Die Lieferung war schlecht verpackt und der Kundendienst hat mir bis heute nicht geantwortet, sehr schade.",
        "Le colis est arrivé en retard et le service client ne répond pas à mes messages depuis deux semaines.",
        "El paquete llegó tarde y el servicio de atención al cliente no responde a mis mensajes desde hace semanas.",
        "De levering was slecht verpakt en de klantenservice heeft mij tot vandaag niet geantwoord, erg jammer zeg.",
        "包裹送达时已经损坏。客服一直没有回复我的消息。",
    ],
)
async def test_no_sentiment_is_claimed_for_other_languages(text):
    reply = await ask("analyze_sentiment", data={"text": text * 2})
    assert reply.data["sentimentScores"][0]["label"] in ("unknown", "neutral")
    assert reply.data["sentimentScores"][0]["score"] == 0


async def test_sentiment_of_one_text_and_of_several():
    one = await ask("analyze_sentiment", data={"id": "a", "text": "I love it!"})
    [score] = one.data["sentimentScores"]
    assert (score["id"], score["label"]) == ("a", "positive")
    documents = [{"id": 1, "text": "Great!"}, "It is broken.", None, {"id": "x"}, ["nested"]]
    many = await ask("analyze_sentiment", data={"documents": documents})
    scores = many.data["sentimentScores"]
    assert [entry.get("id", entry.get("index")) for entry in scores] == [1, 1, 2, "x", 4]
    assert [entry["label"] for entry in scores] == ["positive", "negative", "unknown", "unknown", "unknown"]
    assert all(-1 <= entry["score"] <= 1 for entry in scores)


@pytest.mark.parametrize(
    ("documents", "labels"),
    [
        (None, ["unknown", "unknown"]),
        ({"doc1": "Awful.", "doc2": "Lovely."}, ["negative", "positive"]),
        ([{"id": "doc2", "text": "Lovely."}], ["unknown", "positive"]),
        (["Awful."], ["negative", "unknown"]),
    ],
)
async def test_document_ids_are_looked_up_among_the_documents(documents, labels):
    reply = await ask("analyze_sentiment", data={"documentIds": ["doc1", "doc2"], "documents": documents})
    assert [entry["id"] for entry in reply.data["sentimentScores"]] == ["doc1", "doc2"]
    assert [entry["label"] for entry in reply.data["sentimentScores"]] == labels


async def test_summary_consists_of_the_weightiest_sentences():
    reply = await ask("summarize", data={"text": PARAGRAPH}, params={"sentences": 2})
    assert reply.response == (
        "A queue remembers every job until a worker has finished it. "
        "When a worker crashes, the queue hands its job to another worker."
    )
    assert (reply.data["sentences"], reply.data["ofSentences"]) == (2, 5)
    assert {"queue", "worker"} <= set(reply.data["keyTerms"])


async def test_document_description_has_language_size_and_topics():
    reply = await ask("analyze_document", data={"document": f"# Work queues\n\n{PARAGRAPH}"})
    assert reply.data["title"] == "Work queues"
    assert (reply.data["sentences"], reply.data["readingMinutes"]) == (5, 1)
    assert reply.response.startswith("“Work queues”: 35 words in 5 sentences.")
    given_title = await ask("analyze_document", data={"document": {"title": "T", "content": PARAGRAPH}})
    assert given_title.data["title"] == "T"


async def test_report_is_computed_from_the_given_numbers():
    params = {
        "title": "Week 9",
        "metrics": {"revenue": {"previous": 1000, "current": 1250}, "tickets": 17},
        "daily": [3, 5, 9, 8, 12],
        "orders": [{"total": 5, "country": "DE"}, {"total": 7, "country": "DE"}, {"total": 9, "country": "FR"}],
        "comments": ["The new layout is really great."],
    }
    reply = await ask("generate_report", params=params)
    assert reply.data["basis"] == {"figures": 2, "series": 1, "records": 3, "texts": 1}
    sections = {section["heading"]: section["lines"] for section in reply.data["sections"]}
    assert sections["Figures"] == ["metrics.revenue: 1,250, up from 1,000 (+25.0%)", "metrics.tickets: 17"]
    assert sections["Series"] == ["daily: 5 values from 3 to 12, mean 7.4, median 8; last 12, up from 3 (+300.0%)"]
    assert "orders.total: total 21, mean 7, from 5 to 9" in sections["Records"]
    assert "orders.country: DE 2, FR 1" in sections["Records"]
    assert reply.response.startswith("Week 9\n\nOverview\n- This report rests on 2 figures, 1 series")


async def test_report_on_labels_has_nothing_to_compute():
    reply = await ask("generate_report", params={"type": "weekly sales", "period": "2026-W09"})
    assert reply.data["title"] == "Weekly sales report for 2026-W09"
    assert "nothing to compute" in reply.response
    assert reply.confidence == 0


@pytest.mark.parametrize(
    ("customer", "expected"),
    [
        (
            {"id": "c1", "name": "ANNA  van der BERG", "email": "Anna@acme-tools.co.uk"},
            {"name": "Anna van der Berg", "company": "Acme Tools", "emailKind": "company", "segment": "business"},
        ),
        ({"id": 5, "firstName": "jean-luc", "lastName": "o'neill"}, {"customerId": 5, "name": "Jean-Luc O'Neill"}),
        ({"email": "a@gmail.com"}, {"emailKind": "freemail", "company": None, "segment": "consumer"}),
        ({"email": "a@yopmail.com"}, {"emailKind": "disposable", "segment": "unknown"}),
        ({"email": "a@cs.ox.ac.uk"}, {"emailKind": "education", "segment": "education"}),
        ({"email": "not an address"}, {"emailKind": "invalid", "emailDomain": None}),
        ({"name": "McKay", "employees": 5000}, {"name": "McKay", "segment": "enterprise"}),
    ],
)
async def test_a_customer_is_enriched(customer, expected):
    for data in (customer, {"customer": customer}):
        found = (await ask("enrich_customer", data=data)).data
        assert {key: found[key] for key in expected} == expected
        assert found["insights"]


@pytest.mark.parametrize(
    ("transaction", "rules"),
    [
        ({"amount": 12.5, "country": "US", "cardCountry": "us", "timestamp": "2026-03-01T13:12:00Z"}, []),
        ({"amount": "12000.01"}, ["amount"]),
        ({"amount": -980}, ["amount"]),
        ({"amount": 70, "country": "NG", "cardCountry": "US"}, ["country_mismatch"]),
        ({"amount": 70, "timestamp": "2026-03-01T03:12:00+05:00"}, ["night_hours"]),
        ({"amount": 300}, ["round_amount"]),
        ({"amount": 70, "history": [{"amount": 2}, {"amount": 3}, {"amount": 4}]}, ["unusual_amount"]),
        ({"amount": 7, "timestamp": 1772370600, "history": [{"timestamp": 1772370000000}] * 6}, ["velocity"]),
        ({"amount": 7, "failedAttempts": 4, "accountAgeDays": 0, "newDevice": True}, None),
    ],
)
async def test_fraud_check_names_the_rules_that_match(transaction, rules):
    data = (await ask("detect_fraud", data=transaction)).data
    found = [reason["rule"] for reason in data["reasons"]]
    assert found == (["new_account", "failed_attempts", "new_device"] if rules is None else rules)
    assert 0 <= data["score"] < 1
    assert data["alert"] == (data["score"] >= 0.5)
    assert sorted(data["checked"] + data["notChecked"]) == sorted(
        (await ask("detect_fraud", data={"amount": 1})).data["checked"]
        + (await ask("detect_fraud", data={"amount": 1})).data["notChecked"]
    )


@pytest.mark.parametrize(
    ("task", "fields", "pointer"),
    [
        ("translate", {"data": {"text": "x"}}, "/task"),
        ("query", {}, "/query"),
        ("analyze_sentiment", {}, "/data/text"),
        ("analyze_sentiment", {"data": {"text": 5}}, "/data/text"),
        ("analyze_sentiment", {"data": {"documents": 5}}, "/data/documents"),
        ("analyze_sentiment", {"data": {"documentIds": "doc1"}}, "/data/documentIds"),
        ("summarize", {"params": {"sentences": 2}}, "/params/text"),
        ("summarize", {"data": {"text": "A."}, "params": {"sentences": 0}}, "/params/sentences"),
        ("summarize", {"data": {"text": " \x00 "}}, "/data/text"),
        ("analyze_document", {"params": {"document": [1]}}, "/params/document"),
        ("analyze_document", {"data": {"document": "https://client.com/doc.pdf"}}, "/data/document"),
        ("generate_report", {}, "/data"),
        ("enrich_customer", {"data": {"x": 1}}, "/data/email"),
        ("detect_fraud", {"data": {"country": "DE"}}, "/data/amount"),
        ("detect_fraud", {"data": {"amount": 10**400}}, "/data/amount"),
        ("detect_fraud", {"data": {"amount": 1, "threshold": True}}, "/data/threshold"),
    ],
)
async def test_unusable_input_is_rejected_with_a_pointer(task, fields, pointer):
    assert (await rejection(task, **fields)).pointer == pointer


async def test_unknown_task_lists_the_known_ones():
    detail = (await rejection("translate")).detail
    assert all(task in detail for task in TASKS)


_FIELDS = """
    text document documents documentIds items id title sentences customer name email company employees history
    previousInteractions transaction amount timestamp country cardCountry threshold amountLimit averageAmount
    accountAgeDays metrics current previous feedback customerId period type a/b~c
"""
_TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=()), max_size=40),
    st.sampled_from([ANGRY, "a@b.de", "\x00", "\ud800", "1e999", "-5", "2026-01-01", "!?"]),
    st.sampled_from(["9999-12-31T23:59:59-23:59", "!?"]),
)
_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([10**4000, -(10**400), 2**63, 1e308, -1e-320, float("inf"), 0.1]),
    st.floats(allow_nan=False),
    _TEXTS,
)
_KEYS = st.one_of(st.sampled_from(_FIELDS.split()), _TEXTS)
_JSON = st.recursive(
    _SCALARS, lambda child: st.lists(child, max_size=4) | st.dictionaries(_KEYS, child, max_size=5), max_leaves=12
)
_OBJECTS = st.dictionaries(_KEYS, _JSON, max_size=5)


@pytest.mark.parametrize("task", TASKS)
@settings(max_examples=100, deadline=None)
@given(query=st.none() | _TEXTS, context=_OBJECTS, data=_OBJECTS, params=_OBJECTS)
async def test_any_json_is_answered_or_rejected(task, query, context, data, params):
    problem: AgentRejected | None = None
    try:
        reply = await ask(task, query=query, context=context, data=data, params=params)
    except AgentRejected as rejected:
        problem = rejected
    else:
        assert 0 <= reply.confidence <= 1
        Reply.model_validate_json(reply.model_dump_json())
    if problem is not None:
        assert problem.pointer.startswith("/")
        assert (problem.detail + problem.pointer).encode()


@pytest.mark.parametrize("task", TASKS)
async def test_huge_integers_are_handled(task):
    # Beyond 4300 digits `str` raises; no strategy can hold such a number, for it could not show it.
    data = dict.fromkeys(_FIELDS.split(), 10**5000) | {"items": [10**5000], "amount": 5, "text": "Fine."}
    data |= {"documentIds": [10**5000], "documents": None, "document": None}
    if task == "summarize":
        data |= {"items": None, "sentences": 3}
    data |= {"threshold": 0.5, "amountLimit": 5, "email": "a@b.de"}
    assert (await ask(task, query="Analyze", context=data, data=data)).model_dump_json()


@pytest.mark.parametrize(
    "text", ["!" * 500_000, ":(" * 250_000, "_" * 500_000, "!\u200d" * 250_000 + "😀", " " * 500_000 + "x"]
)
async def test_adversarial_texts_take_linear_time(text):
    start = time.perf_counter()
    await ask("analyze_sentiment", data={"text": text})
    # The lexicon library alone takes a quarter of a minute over some of these, and a minute over twice as much.
    assert time.perf_counter() - start < 10


async def test_long_text_does_not_block_the_event_loop():
    work = asyncio.create_task(ask("analyze_document", data={"text": PARAGRAPH * 2_000}))
    turns = 0
    while not work.done():
        await asyncio.sleep(0.001)
        turns += 1
    assert (await work).data["words"] == 35 * 2_000
    assert turns > 10


_PROGRAM = """
import sys
from sevenfold.adapters.agents.builtin.agent import TASKS
from sevenfold.contracts.agents.interface import AgentRequest
for line in sys.stdin:
    request = AgentRequest.model_validate_json(line)
    print(TASKS[request.task](request).model_dump_json())
"""


def test_answer_is_deterministic_across_processes():
    data = {"text": PARAGRAPH, "id": "c", "email": "a@b.de", "amount": 5, "country": "DE", "cardCountry": "FR"}
    requests = "\n".join(
        AgentRequest(run_id="r", task=task, query=ANGRY, data=data).model_dump_json() for task in TASKS
    )
    answers = {
        subprocess.run(
            [sys.executable, "-c", _PROGRAM],
            input=requests,
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).parent.parent,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONIOENCODING": "utf-8"},
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(answers) == 1
    assert answers.pop().count("\n") == len(TASKS)


async def test_large_texts_of_one_tenant_do_not_hold_up_another() -> None:
    """A tenant's forty texts wait for the four threads; another tenant's text waits for one turn."""
    agent, ended = BuiltinAgent(), []

    async def summarize(tenant: str) -> None:
        request = AgentRequest(run_id="r", task="summarize", data={"text": PARAGRAPH * 400})
        context = AgentContext(deadline=CONTEXT.deadline, tenant=tenant)
        async for _ in agent.run(request, context):
            pass
        ended.append(tenant)

    await asyncio.gather(*(summarize("acme") for _ in range(40)), summarize("globex"))
    assert ended.index("globex") <= 12


async def test_cancelled_call_keeps_its_thread_until_it_is_free() -> None:
    agent = BuiltinAgent()
    request = AgentRequest(run_id="r", task="summarize", data={"text": PARAGRAPH * 2_000})

    async def summarize() -> None:
        async for _ in agent.run(request, CONTEXT):
            pass

    calls = [asyncio.create_task(summarize()) for _ in range(8)]
    await asyncio.sleep(0.01)
    for call in calls:
        call.cancel()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(one, asyncio.CancelledError) for one in outcomes)
    await asyncio.wait_for(asyncio.gather(*(summarize() for _ in range(4))), 60)
