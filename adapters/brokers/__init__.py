"""Message brokers: NATS, RabbitMQ and Redis Streams over FastStream, Kafka over aiokafka, AWS over aioboto3.

`consumer` stores a message in Temporal before it is acknowledged; `connection` reconnects without a limit.
"""
