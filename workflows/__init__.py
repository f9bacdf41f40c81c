"""Workflows: one file per pattern, a folder for what each group of them shares, and `maintenance/`.

Workflow code is deterministic: every access to a clock, a file or the network is an activity.
"""
