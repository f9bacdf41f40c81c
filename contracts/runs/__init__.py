"""Runs of all patterns: requests, workflow inputs, results, outcomes, jobs, streams, the choice of a pattern."""
