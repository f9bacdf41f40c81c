"""Where derived events say that they come from."""


def subscription_source(subscription: str) -> str:
    """The `source` of what a subscription publishes."""
    return f"/sevenfold/subscriptions/{subscription}"


# Where the events come from that tell of runs' ends, and what their types begin with.
RUNS_SOURCE = "/sevenfold/runs"
INTERACTION_TYPE_PREFIX = "interaction."
