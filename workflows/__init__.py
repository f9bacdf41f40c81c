"""Workflows: one file per pattern, and a folder for what each group of them shares.

Workflow code is deterministic: every access to a clock, a file or the network is an activity.
"""
