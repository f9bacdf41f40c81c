"""What the pattern workflows share: the agent call, retry profiles, streams, failures, item fan-out."""
