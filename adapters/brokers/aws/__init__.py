"""Amazon SQS and EventBridge, by aioboto3: region, endpoint and credentials come from AWS's own variables."""
