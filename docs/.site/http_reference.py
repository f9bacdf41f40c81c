"""Every operation of the HTTP API, with parameters, body and answers, from the OpenAPI document."""

from collections.abc import Mapping
from typing import Any

from markdown_tables import table

_JSON = "application/json"

Node = Mapping[str, Any]


def describe(document: Node) -> str:
    """Returns a section for each tag, with its operations."""
    sections = []
    for tag in document["tags"]:
        operations = [
            _describe(document, method, path, operation)
            for path, methods in document["paths"].items()
            for method, operation in methods.items()
            if tag["name"] in operation.get("tags", [])
        ]
        if operations:
            title = tag["name"][0].upper() + tag["name"][1:]
            sections.append(f"## {title}\n\n{tag['description']}\n\n" + "\n".join(operations))
    return "\n".join(sections)


def _describe(document: Node, method: str, path: str, operation: Node) -> str:
    text = " ".join(operation.get("description", "").split())
    parts = [f"### `{method.upper()} {path}`\n\n{operation['summary']}. {text}\n"]
    if parameters := operation.get("parameters"):
        rows = [
            (f"`{one['name']}` ({one['in']})", "yes" if one.get("required") else "", _about(document, one))
            for one in parameters
        ]
        parts.append(table(("parameter", "required", "meaning"), rows))
    body = operation.get("requestBody", {}).get("content", {}).get(_JSON, {}).get("schema")
    if body is not None and (fields := _fields(document, body)):
        parts.append(table(("field of the body", "required", "meaning"), fields))
    answers = [(str(status), _answer(document, found)) for status, found in sorted(operation["responses"].items())]
    ok = [row for row in answers if row[0] < "400"]
    errors = ", ".join(status for status, _ in answers if status >= "400")
    parts.append(table(("answer", "what it is"), [*ok, *([(errors, "[a problem](problems.md)")] if errors else [])]))
    return "\n".join(parts)


def _answer(document: Node, response: Node) -> str:
    text = response["description"]
    for media, content in response.get("content", {}).items():
        fields = _fields(document, content.get("schema", {}))
        if fields:
            return f"{_plain(text)} {', '.join(name for name, _, _ in fields)}"
        if media != _JSON:
            return f"{_plain(text)} `{media}`"
    return _plain(text)


def _plain(text: str) -> str:
    text = " ".join(text.split()).replace("|", "\\|")
    return "Done:" if text == "Successful Response" else text


def _fields(document: Node, schema: Node) -> list[tuple[str, str, str]]:
    """The fields of an object: name, whether it is required, meaning."""
    found = _resolve(document, schema)
    required = found.get("required", [])
    return [
        (f"`{name}`", "yes" if name in required else "", _about(document, one))
        for name, one in found.get("properties", {}).items()
    ]


def _about(document: Node, node: Node) -> str:
    schema = node.get("schema", node)
    resolved = _resolve(document, schema)
    text = node.get("description") or schema.get("description") or resolved.get("description") or ""
    kind = _kind(document, schema)
    meaning = " ".join(str(text).split()).replace("|", "\\|")
    default = schema.get("default")
    shown = f" Default: `{default}`." if default not in (None, {}, [], "", False) else ""
    return f"{kind}. {meaning}{shown}" if meaning or shown else kind


def _kind(document: Node, schema: Node) -> str:
    """The type in words, with its bounds."""
    found = _resolve(document, schema)
    if "enum" in found:
        return ", ".join(f"`{one}`" for one in found["enum"])
    kind = str(found.get("type", "any"))
    if kind == "array":
        return f"list of {_kind(document, found.get('items', {}))}"
    low, high = found.get("minimum", found.get("exclusiveMinimum")), found.get("maximum")
    if low is not None and high is not None:
        return f"{kind}, {_number(low)} to {_number(high)}"
    return kind


def _number(value: float) -> str:
    return f"{value:,.10g}" if value != int(value) else f"{int(value):,}"


def _resolve(document: Node, schema: Node) -> Node:
    """Follows references, and takes what an optional value is if it is there."""
    while True:
        if "$ref" in schema:
            schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        elif "anyOf" in schema and (present := [one for one in schema["anyOf"] if one.get("type") != "null"]):
            more = {key: value for key, value in schema.items() if key != "anyOf"}
            schema = {**more, **present[0]}
        else:
            return schema
