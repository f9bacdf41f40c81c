"""When a circuit opens: by the failures of an agent, not by those of one tenant's requests."""

import time

from sevenfold.adapters.agents.admission.failure_window import FailureWindow


def opens(*calls: str, minimum: int = 4, rate: float = 0.5, seconds: float = 30.0) -> bool:
    """Whether the last call opens the circuit. `a` is a success of the tenant a, `A` a failure."""
    window = FailureWindow(seconds, minimum, rate)
    return [window.record(call.lower(), failed=call.isupper()) for call in "".join(calls)][-1]


def test_failures_of_the_only_tenant_open_the_circuit() -> None:
    assert opens("AAAA")
    assert opens("aaAA")
    assert not opens("AAA"), "too few calls"
    assert not opens("aaaAA")


def test_failures_of_one_tenant_do_not_open_it_for_another() -> None:
    assert not opens("b", "A" * 100)
    assert not opens("bbb", "A" * 100)
    assert not opens("bbcc", "A" * 100)


def test_failures_of_two_tenants_open_it() -> None:
    assert opens("A" * 100, "B")
    assert opens("B", "A" * 100)
    assert opens("bB", "A" * 100)
    assert not opens("bbB", "A" * 100)


def test_failures_of_many_tenants_open_it_whoever_fails_most() -> None:
    assert opens("aA", "bB", "cC", "DDDD")
    assert not opens("aaA", "bbB", "ccC", "D" * 20)


def test_tenant_that_called_before_the_window_counts_no_more() -> None:
    window = FailureWindow(0.05, 3, 0.5)
    assert not window.record("b", failed=False)
    assert not any(window.record("a", failed=True) for _ in range(5))
    time.sleep(0.06)
    assert [window.record("a", failed=True) for _ in range(3)] == [False, False, True]
