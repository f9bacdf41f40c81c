"""Kafka, by FastStream and aiokafka: group consumers whose committed offsets have no gap, an idempotent producer."""
