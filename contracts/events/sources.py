"""The `source` of events that the gateway publishes."""


def subscription_source(subscription: str) -> str:
    """Returns the `source` of a subscription's derived events."""
    return f"/sevenfold/subscriptions/{subscription}"


# The `source` of interaction events (ends of runs), and the prefix of their types.
RUNS_SOURCE = "/sevenfold/runs"
INTERACTION_TYPE_PREFIX = "interaction."
# The type of the event of a run that requires input.
INPUT_REQUIRED_TYPE = "run.input_required"
