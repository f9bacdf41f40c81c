"""Large payloads outside Temporal's histories: in a shared directory or an S3 bucket."""
