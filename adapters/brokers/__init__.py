"""Message brokers: one file per broker (Kafka, NATS, RabbitMQ, Redis Streams), over FastStream.

`consumer` stores a message in Temporal before it is acknowledged; `connection` reconnects without a limit.
"""
