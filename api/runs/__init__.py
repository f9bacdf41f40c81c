"""Runs of any pattern: start, await, poll, list, read and cancel."""
