"""Streams: what agents write and readers read, live in memory and durable in a log.

`hub` has the life cycle: one hub with one replay buffer per open run and process. `publisher` fills the buffer where
the agent works, `batch_writer` writes it to the log behind; elsewhere `log_feeder` fills the buffer from the log.
`reader` follows it. The log is the run's own history (`temporal/`) or Redis (`redis/`).
"""
