"""A token bucket: calls at a rate, and some at the same time after a pause."""

import time


class TokenBucket:
    """Holds at most `max_tokens`; each call takes one. A larger charge makes the number negative."""

    def __init__(self) -> None:
        self._tokens = 0.0
        self._rate = 0.0
        self._max_tokens = 0.0
        self._refilled_at = time.monotonic()

    @property
    def rate(self) -> float:
        """Tokens per second."""
        return self._rate

    def count(self) -> float:
        """Refills the bucket, and returns its tokens."""
        now = time.monotonic()
        self._tokens = min(self._max_tokens, self._tokens + (now - self._refilled_at) * self._rate)
        self._refilled_at = now
        return self._tokens

    def take(self, tokens: float = 1.0) -> None:
        """Removes tokens; a negative number puts tokens back."""
        self._tokens -= tokens

    def refill_at(self, rate: float, max_tokens: float, added: float) -> None:
        """Changes the rate and the bound from now on, and adds tokens."""
        self._tokens = min(max_tokens, self.count() + added)
        self._rate, self._max_tokens = rate, max_tokens

    def empty(self) -> float:
        """Stops the rate, and returns the tokens that were left."""
        left = self.count()
        self._tokens, self._rate = 0.0, 0.0
        return left

    def seconds_until_next(self) -> float:
        """Returns when there is a token for the next call; 0 without a rate."""
        return max(0.0, 1 - self.count()) / self._rate if self._rate > 0 else 0.0
