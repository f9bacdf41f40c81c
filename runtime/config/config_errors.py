"""What is wrong in `sevenfold.toml`, in words: the line, the key, and what to write instead."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sevenfold.contracts.config.schema import SevenfoldConfig
from sevenfold.contracts.spelling import suggest
from sevenfold.runtime.config.toml_lines import find_line
from sevenfold.runtime.config.validation_words import to_words


def describe_errors(path: Path, text: str, error: ValidationError) -> str:
    """Returns one line per mistake. No value of the file is shown: it may be a secret."""
    schema = SevenfoldConfig.model_json_schema()
    lines = []
    for one in error.errors(include_input=False, include_url=False):
        location, _ = _walk(schema, one["loc"])
        number = find_line(text, location)
        place = f"line {number}" if number else "the file"
        key = ".".join(str(part) for part in location if part != "[key]")
        lines.append(f"  {place}: {key}: {_to_words(schema, one)}" if key else f"  {place}: {_to_words(schema, one)}")
    return f"{path} has mistakes:\n" + "\n".join(lines)


def _to_words(schema: Mapping[str, Any], error: Mapping[str, Any]) -> str:
    kind, context = error["type"], dict(error.get("ctx") or {})
    if kind == "extra_forbidden":
        *parents, name = error["loc"]
        _, table = _walk(schema, parents)
        known = sorted((table or {}).get("properties", {}))
        there_are = f"; there are: {', '.join(known)}" if known else ""
        return f"there is no such key{suggest(str(name), known) or there_are}"
    if kind == "union_tag_invalid":
        tags = str(context["expected_tags"]).replace("'", "").split(", ")
        return f"kind must be one of {', '.join(tags)}{suggest(str(context['tag']), tags)}"
    return to_words(error)


def _walk(
    schema: Mapping[str, Any], location: Sequence[int | str]
) -> tuple[list[int | str], Mapping[str, Any] | None]:
    """Returns a location as it is in the file, and its schema. pydantic names the kind of an agent after the agent's
    name; the file does not.
    """
    found: list[int | str] = []
    node: Mapping[str, Any] | None = schema
    for part in location:
        kinds = (node or {}).get("discriminator", {}).get("mapping", {})
        if part in kinds:
            node = _resolve(schema, {"$ref": kinds[part]})
        else:
            found.append(part)
            node = _descend(schema, node, part)
    return found, node


def _descend(schema: Mapping[str, Any], node: Mapping[str, Any] | None, part: int | str) -> Mapping[str, Any] | None:
    """Returns the schema of one member of a table or list; None if it has none."""
    if node is None:
        return None
    if isinstance(part, int):
        found = node.get("items")
    else:
        of_any_name = [*node.get("patternProperties", {}).values(), node.get("additionalProperties")]
        found = node.get("properties", {}).get(part) or next((one for one in of_any_name if one), None)
    return _resolve(schema, found) if isinstance(found, Mapping) else None


def _resolve(schema: Mapping[str, Any], node: Mapping[str, Any]) -> Mapping[str, Any]:
    """Follows references, and takes what an optional value is if it is there."""
    while True:
        if "$ref" in node:
            node = schema["$defs"][str(node["$ref"]).rpartition("/")[2]]
        elif "anyOf" in node and (present := [one for one in node["anyOf"] if one.get("type") != "null"]):
            node = present[0]
        else:
            return node
