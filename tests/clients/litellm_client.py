"""LiteLLM against a gateway: python litellm_client.py http://127.0.0.1:8000/v1

Prints one JSON object with what it has seen; tests/test_openai_other_clients.py compares.
"""

import asyncio
import json
import os
import sys
from typing import Any

# Otherwise it asks another host for prices when it is imported.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm
import openai

HELLO = [{"role": "user", "content": "hello"}]


async def main(url: str) -> dict[str, Any]:
    terms: dict[str, Any] = {"api_base": url, "api_key": "any", "timeout": 60}
    found = await litellm.acompletion(model="openai/echo", messages=HELLO, temperature=0.5, **terms)
    seen: dict[str, Any] = {"chat": found.choices[0].message.content, "finish": found.choices[0].finish_reason}
    stream = await litellm.acompletion(
        model="openai/teller",
        messages=HELLO,
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"sevenfold": {"params": {"say": ["one ", "two"]}}},
        **terms,
    )
    chunks = [one async for one in stream]
    seen["stream"] = "".join(one.choices[0].delta.content or "" for one in chunks if one.choices)
    response = await litellm.aresponses(model="openai/echo", input="hello", **terms)
    seen["response"] = [response.status, response.output[0].content[0].text]
    events = await litellm.aresponses(model="openai/simulator", input="hello", stream=True, **terms)
    seen["end"] = str([one.type async for one in events][-1].value)
    background = await litellm.aresponses(model="openai/echo", input="hello", background=True, **terms)
    seen["background"] = background.status
    seen["errors"] = []
    for model in ("nobody", "hopeless"):
        try:
            await litellm.acompletion(model=f"openai/{model}", messages=HELLO, max_retries=0, **terms)
        except openai.APIStatusError as error:  # The classes of LiteLLM are derived from it.
            seen["errors"].append([type(error).__name__, error.status_code])
    return seen


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(sys.argv[1]))))  # noqa: T201
