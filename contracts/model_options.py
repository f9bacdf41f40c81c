"""Options of language models."""

# Params of a request, by the names that Chat Completions has for them: `openai` agents hand them on to the server of
# the model, and clients of the gateway's own `/v1` set them.
MODEL_OPTIONS = (
    "temperature",
    "top_p",
    "max_tokens",
    "max_completion_tokens",
    "seed",
    "stop",
    "presence_penalty",
    "frequency_penalty",
    "reasoning_effort",
    "response_format",
)
