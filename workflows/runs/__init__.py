"""What the patterns' workflows are made of: the agent call, its retries, streams, failures, item fan-out."""
