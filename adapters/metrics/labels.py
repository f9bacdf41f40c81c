"""Which values labels may have.

A client's text is never a label value: each new value is a new time series, kept for ever.
"""

from collections.abc import Collection
from dataclasses import dataclass

# The value of tasks that the configuration does not name.
OTHER = "other"

# Buckets of durations, in seconds: from an answer out of memory to a long agent call.
DURATION_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)

# Buckets of what may take days, in seconds: runs, and the age of an event at its reaction.
LONG_BUCKETS = (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 900, 3600, 21_600, 86_400)


@dataclass(frozen=True)
class LabelPolicy:
    """`tasks` are shown by name, all others as `other`. `tenants`: whether tenants are shown."""

    tasks: Collection[str] = ()
    tenants: bool = False

    def task(self, name: str) -> str:
        """Returns the label of a task."""
        return name if name in self.tasks else OTHER

    def tenant(self, name: str) -> str:
        """Returns the label of a tenant; the empty one is as good as none."""
        return name if self.tenants else ""


_policy = LabelPolicy()


def use_policy(policy: LabelPolicy) -> None:
    """Sets the policy of this process, before anything is counted."""
    global _policy
    _policy = policy


def policy() -> LabelPolicy:
    """Returns the policy of this process."""
    return _policy
