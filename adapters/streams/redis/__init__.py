"""The log of streams in Redis: one Redis Stream per run, for many hosts and thousands of readers."""
