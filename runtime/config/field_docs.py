"""The description of each field of the configuration's models, as the string below it in the source.

Read only where it is shown: pydantic would read it at every import, which takes 0.2 s.
"""

import ast
import inspect
import re
from collections.abc import Iterable, Iterator
from functools import cache
from types import ModuleType
from typing import Any, get_args

from pydantic import BaseModel

_LINK = re.compile(r"\[([^\]]+)\]\([^)\s]+\)")


def describe_field(model: type[BaseModel], name: str) -> str:
    """Returns the field's description in Markdown, with links relative to docs/. Empty if there is none."""
    for owner in model.__mro__:
        module = inspect.getmodule(owner)
        if (
            module is not None
            and issubclass(owner, BaseModel)
            and (found := _docs_of(module).get((owner.__name__, name)))
        ):
            return found
    return model.model_fields[name].description or ""


def describe_schema(root: type[BaseModel], models: Iterable[type[BaseModel]]) -> dict[str, Any]:
    """Returns the JSON Schema of `root` with descriptions for editors, in plain text, of its keys and those of
    `models`.
    """
    schema = root.model_json_schema()
    for model in (root, *models):
        node = schema if model is root else schema["$defs"].get(model.__name__, {})
        for name, field in model.model_fields.items():
            found = node.get("properties", {}).get(field.alias or name)
            if found is not None and (text := describe_field(model, name)):
                found["description"] = _LINK.sub(r"\1", text)
    return schema


def find_models(root: type[BaseModel]) -> list[type[BaseModel]]:
    """Returns the models of the fields of `root`, and those of their fields, each once."""
    found: list[type[BaseModel]] = []
    to_visit: list[Any] = [field.annotation for field in root.model_fields.values()]
    while to_visit:
        one = to_visit.pop(0)
        if isinstance(one, type) and issubclass(one, BaseModel):
            if one not in found:
                found.append(one)
                to_visit += [field.annotation for field in one.model_fields.values()]
        else:
            to_visit += get_args(one)
    return found


@cache
def _docs_of(module: ModuleType) -> dict[tuple[str, str], str]:
    """Returns the strings below the fields of a module's classes, by class and field."""
    classes = [one for one in ast.parse(inspect.getsource(module)).body if isinstance(one, ast.ClassDef)]
    return {(one.name, field): text for one in classes for field, text in _docs_in(one)}


def _docs_in(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for field, after in zip(node.body, node.body[1:], strict=False):
        if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
            continue
        match after:
            case ast.Expr(value=ast.Constant(value=str(text))):
                yield field.target.id, " ".join(text.split())
