"""The recommendation of a pattern, as a function and over HTTP."""

import pytest

from sevenfold.contracts.runs.recommendation import ClientKind, Maturity, Situation, recommend
from sevenfold.contracts.runs.run import Pattern
from tests.support.stack import Stack

RECOMMEND = "/api/agent/patterns/recommend"


@pytest.mark.parametrize(
    ("situation", "pattern"),
    [
        (Situation(), Pattern.SYNCHRONOUS),
        (Situation(duration_seconds=2), Pattern.SYNCHRONOUS),
        (Situation(duration_seconds=4.9, requests_per_minute=50, maturity=Maturity.EARLY), Pattern.SYNCHRONOUS),
        (Situation(duration_seconds=5), Pattern.STREAMING),
        (Situation(duration_seconds=60, real_time_feedback=True), Pattern.STREAMING),
        (Situation(duration_seconds=20, real_time_feedback=False), Pattern.QUEUE),
        (Situation(duration_seconds=61), Pattern.QUEUE),
        (Situation(duration_seconds=600, client=ClientKind.THIRD_PARTY), Pattern.WEBHOOK),
        (Situation(duration_seconds=600, client=ClientKind.LEGACY), Pattern.POLLING),
        (Situation(duration_seconds=2, client=ClientKind.LEGACY, real_time_feedback=True), Pattern.POLLING),
        (Situation(requests_per_minute=500), Pattern.QUEUE),
        (Situation(requests_per_minute=5_000, client=ClientKind.OWN), Pattern.EVENT),
        (Situation(requests_per_minute=5_000, maturity=Maturity.MATURE), Pattern.EVENT),
        (Situation(maturity=Maturity.GROWING), Pattern.QUEUE),
    ],
)
def test_recommendation_answers_the_questions_of_the_article(situation: Situation, pattern: Pattern) -> None:
    found = recommend(situation)
    assert found.pattern is pattern
    assert pattern not in found.alternatives
    assert found.start.startswith("POST /api/agent/")


def test_recommended_pattern_fits_every_situation() -> None:
    for seconds in (None, 1, 30, 31, 1_000):
        for client in (None, *ClientKind):
            for rate in (None, 10, 500, 5_000):
                for watch in (None, True, False):
                    for maturity in (None, *Maturity):
                        found = recommend(
                            Situation(
                                duration_seconds=seconds,
                                client=client,
                                requests_per_minute=rate,
                                real_time_feedback=watch,
                                maturity=maturity,
                            )
                        )
                        if seconds and seconds > 30:
                            assert found.pattern is not Pattern.SYNCHRONOUS
                        if client is ClientKind.LEGACY:
                            assert found.pattern in (Pattern.POLLING, Pattern.SYNCHRONOUS, Pattern.QUEUE)


def test_recommendation_names_conflicts_and_warnings() -> None:
    legacy = recommend(Situation(client=ClientKind.LEGACY, real_time_feedback=True))
    assert "cannot show progress" in legacy.conflicts[0]
    small = recommend(Situation(requests_per_minute=5_000, maturity=Maturity.EARLY, duration_seconds=90))
    assert any("early team" in conflict for conflict in small.conflicts)
    assert any("30 s timeouts" in warning for warning in small.warnings)
    assert any("Idempotency-Key" in warning for warning in small.warnings)


async def test_recommendation_over_http(stack: Stack) -> None:
    answer = await stack.http.post(RECOMMEND, json={"durationSeconds": 45, "client": "thirdParty"})
    assert answer.status_code == 200
    assert answer.json()["pattern"] == "webhook"
    bad = await stack.http.post(RECOMMEND, json={"client": "martian", "durationSeconds": -1})
    assert bad.status_code == 422
    assert {error["pointer"] for error in bad.json()["errors"]} == {"/client", "/durationSeconds"}
    unknown = await stack.http.post(RECOMMEND, json={}, params={"agent": "nobody"})
    assert unknown.status_code == 422
