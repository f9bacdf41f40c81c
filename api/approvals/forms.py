"""HTML forms of JSON Schemas: the fields of a flat object or of one value; anything else is written as JSON."""

import json
from collections.abc import Mapping
from html import escape
from typing import Any

from pydantic import JsonValue

from sevenfold.contracts.json.strict import parse_json

# The name of the field with a single value, or with JSON.
WHOLE, AS_JSON = "content", "json"

_TYPES = {"string": "text", "integer": "number", "number": "number"}
_FORMATS = {"email": "email", "date": "date", "uri": "url"}


class FormError(Exception):
    """A field of the form cannot be read. The message is for the person who filled it in."""


def render_fields(schema: Any) -> str:
    """Returns the fields of a schema."""
    properties = _properties(schema)
    if properties is not None:
        required = schema.get("required", [])
        return "".join(
            _field(f"field-{number}", name, one, is_required=name in required)
            for number, (name, one) in enumerate(properties.items())
        )
    if _is_simple(schema):
        return _field(WHOLE, "Your answer", schema, is_required=True)
    shown = escape(json.dumps(schema, indent=2))
    return (
        f'<p><label for="{AS_JSON}">Your answer, as JSON</label>'
        f'<textarea id="{AS_JSON}" name="{AS_JSON}" rows="8" required aria-describedby="schema"></textarea></p>'
        f'<details id="schema"><summary>Its JSON Schema</summary><pre>{shown}</pre></details>'
    )


def read_fields(schema: Any, form: Mapping[str, str]) -> JsonValue:
    """Returns the content that a form holds. Raises FormError."""
    properties = _properties(schema)
    if properties is not None:
        found: dict[str, JsonValue] = {}
        for number, (name, one) in enumerate(properties.items()):
            text = form.get(f"field-{number}", "")
            if text or one.get("type") == "boolean":
                found[name] = _parse(name, one, text)
        return found
    if _is_simple(schema):
        return _parse("Your answer", schema, form.get(WHOLE, ""))
    try:
        return parse_json(form.get(AS_JSON, ""))
    except ValueError as error:
        raise FormError(f"This is not JSON: {error}.") from None


def _properties(schema: Any) -> dict[str, Any] | None:
    """The fields of a flat object; None if the schema is not that of one."""
    if not isinstance(schema, dict) or schema.get("type") != "object" or "$ref" in schema:
        return None
    properties = schema.get("properties")
    if not isinstance(properties, dict) or not all(_is_simple(one) for one in properties.values()):
        return None
    return properties


def _is_simple(schema: Any) -> bool:
    if not isinstance(schema, dict):
        return False
    choices = schema.get("enum")
    if isinstance(choices, list):
        return all(isinstance(one, str | int | float | bool) for one in choices)
    return schema.get("type") in (*_TYPES, "boolean")


def _field(field_id: str, name: str, schema: Mapping[str, Any], *, is_required: bool) -> str:
    label = escape(str(schema.get("title") or name))
    hint = escape(str(schema.get("description") or ""))
    described = f' aria-describedby="{field_id}-hint"' if hint else ""
    help_text = f'<small id="{field_id}-hint">{hint}</small>' if hint else ""
    required = " required" if is_required else ""
    common = f'id="{field_id}" name="{field_id}"{described}'
    if isinstance(choices := schema.get("enum"), list):
        options = "".join(f"<option>{escape(_show(one))}</option>" for one in choices)
        control = f'<select {common}{required}><option value=""></option>{options}</select>'
    elif schema.get("type") == "boolean":
        control = f'<select {common}{required}><option value="">{"" if is_required else "no"}</option>'
        control += '<option value="true">yes</option><option value="false">no</option></select>'
    elif schema.get("type") == "string" and schema.get("format") not in _FORMATS:
        control = f'<textarea {common}{required} rows="2"></textarea>'
    else:
        kind = _FORMATS.get(schema.get("format", ""), _TYPES.get(schema.get("type", ""), "text"))
        step = ' step="any"' if schema.get("type") == "number" else ""
        control = f'<input type="{kind}" {common}{required}{step}>'
    return f'<p><label for="{field_id}">{label}</label>{control}{help_text}</p>'


def _show(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _parse(name: str, schema: Mapping[str, Any], text: str) -> JsonValue:
    if isinstance(choices := schema.get("enum"), list):
        found: JsonValue = next((one for one in choices if _show(one) == text), text)
        return found
    match schema.get("type"):
        case "boolean":
            return text == "true"
        case "integer":
            try:
                return int(text)
            except ValueError:
                raise FormError(f"{name} is a whole number.") from None
        case "number":
            try:
                number = float(text)
            except ValueError:
                raise FormError(f"{name} is a number.") from None
            if number != number or number in (float("inf"), float("-inf")):
                raise FormError(f"{name} is a number.")
            return number
    return text.replace("\r\n", "\n")
