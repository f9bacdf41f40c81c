"""Agents behind a URL: the kinds `http` and `openai`.

Each attempt is one POST, limited in size and time. One table maps its outcome to an error; Temporal retries.
"""
