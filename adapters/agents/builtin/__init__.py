"""The agent that ships with Sevenfold: offline, deterministic, no language model; one file per task."""
