"""Messages of OpenAI's clients as agents get them."""

from collections.abc import Sequence
from typing import Any

from sevenfold.api.http.problems import invalid_field
from sevenfold.api.openai.requests import MAX_MESSAGES, TEXT_PARTS, ChatMessage
from sevenfold.contracts.agents.interface import Message
from sevenfold.contracts.agents.model_requests import to_responses_part
from sevenfold.contracts.payload import JsonObject

# A conversation that is continued: the messages of all responses before.
MAX_BYTES = 1_000_000

_ROLES = {"function": "tool"}


def from_chat(messages: Sequence[ChatMessage]) -> list[Message]:
    """Returns the messages. One without content, such as an assistant's tool call, is left out. Raises 422 if none is
    left.
    """
    found = [Message(role=_ROLES.get(one.role, one.role), content=one.content) for one in messages if one.content]
    if not found:
        raise invalid_field("/messages", "no message has a content")
    return found


def from_items(items: str | Sequence[JsonObject]) -> list[Message]:
    """Returns the messages of a Responses input: a text, or items, of which those that are no messages are left out.
    Raises 422 if none is left.
    """
    if isinstance(items, str):
        found = [Message(role="user", content=items)] if items else []
    else:
        found = [message for item in items if (message := _from_item(item)) is not None]
    if not found:
        raise invalid_field("/input", "has no message with a content")
    return found


def _from_item(item: JsonObject) -> Message | None:
    role, content = item.get("role"), item.get("content")
    if item.get("type", "message") != "message" or role not in ("system", "developer", "user", "assistant"):
        return None
    if isinstance(content, str):
        return Message(role=role, content=content) if content else None
    if not isinstance(content, list):
        return None
    parts = [_from_part(part) for part in content if isinstance(part, dict)]
    if all(part.get("type") == "text" for part in parts):
        text = "".join(str(part["text"]) for part in parts)
        return Message(role=role, content=text) if text else None
    return Message(role=role, content=parts)


def _from_part(part: JsonObject) -> JsonObject:
    """Returns a part as Chat Completions has it."""
    if part.get("type") in TEXT_PARTS:
        return {"type": "text", "text": part["text"]}
    if part.get("type") == "input_image" and part.get("image_url"):
        detail = {"detail": part["detail"]} if part.get("detail") else {}
        return {"type": "image_url", "image_url": {"url": part["image_url"], **detail}}
    return part


def to_item(message: Message, item_id: str) -> dict[str, Any]:
    """Returns a message as an item of the Responses API."""
    kind = "output_text" if message.role == "assistant" else "input_text"
    parts: list[JsonObject] = (
        message.content if isinstance(message.content, list) else [{"type": "text", "text": message.content}]
    )
    content = [_to_content(part, kind) for part in parts]
    return {"id": item_id, "type": "message", "status": "completed", "role": message.role, "content": content}


def _to_content(part: JsonObject, text_type: str) -> dict[str, Any]:
    found = to_responses_part(part, text_type)
    return {"detail": "auto", **found} if found.get("type") == "input_image" else found


def find_query(messages: Sequence[Message]) -> str:
    """Returns the text of the user's last message, for agents that take a query."""
    texts = [one.text for one in reversed(messages) if one.role == "user" and one.text]
    return texts[0] if texts else messages[-1].text or "(no text)"


def continue_conversation(before: Sequence[Message], answer: str, new: Sequence[Message]) -> list[Message]:
    """Returns the messages of a response that continues another. Raises 422 if they are too many or too long."""
    answered = [Message(role="assistant", content=answer)] if answer else []
    messages = [*before, *answered, *new]
    size = sum(len(one.model_dump_json()) for one in messages)
    if len(messages) > MAX_MESSAGES or size > MAX_BYTES:
        raise invalid_field(
            "/previous_response_id",
            f"the conversation has {len(messages):,} messages and {size:,} bytes, and may have {MAX_MESSAGES:,} and "
            f"{MAX_BYTES:,}. Start a new one with a summary.",
        )
    return messages
