"""Workflows: one file per pattern, and what they are made of.

Deterministic code only: whatever reads a clock, a file or the network is an activity.
"""
