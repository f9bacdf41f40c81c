"""Agents behind an address: the kinds `http` and `openai`.

One POST, bounded in size and time and never repeated, whose outcome one table maps to an error; Temporal retries.
"""
