"""Large payloads outside Temporal's histories: in a shared directory, or in an S3 bucket."""
