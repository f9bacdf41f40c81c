"""OpenAI's API: models, Chat Completions and Responses, on durable runs."""
