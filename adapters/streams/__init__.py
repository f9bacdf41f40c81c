"""Streams: what agents write and readers read, live in memory and durable in a log.

`hub` holds one replay buffer per open run, the publisher fills it, readers follow it. The log behind it is the run's
own history (`temporal/`) or Redis (`redis/`).
"""
