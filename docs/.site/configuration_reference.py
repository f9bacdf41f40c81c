"""Tables of the settings and of the keys of sevenfold.toml."""

from collections import Counter
from typing import Any

from markdown_tables import table
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from sevenfold.contracts.agents.config import (
    BuiltinAgentConfig,
    CommandAgentConfig,
    HttpAgentConfig,
    OpenAIAgentConfig,
    PythonAgentConfig,
    SimulatorAgentConfig,
    WorkflowAgentConfig,
)
from sevenfold.contracts.config.schema import SevenfoldConfig
from sevenfold.runtime.config.field_docs import describe_field, find_models
from sevenfold.runtime.config.settings import Settings

_AGENTS: dict[str, type[BaseModel]] = {
    "python": PythonAgentConfig,
    "command": CommandAgentConfig,
    "http": HttpAgentConfig,
    "openai": OpenAIAgentConfig,
    "workflow": WorkflowAgentConfig,
    "builtin": BuiltinAgentConfig,
    "simulator": SimulatorAgentConfig,
}


def describe_settings() -> str:
    """Returns the table of all environment variables."""
    rows = [
        (f"`SEVENFOLD_{name.upper()}`", _default(field), _meaning(Settings, name))
        for name, field in Settings.model_fields.items()
    ]
    return table(("variable", "default", "meaning"), rows)


def describe_section(name: str) -> str:
    """Returns the table of a section's keys, by the name of its model."""
    model = next(one for one in (SevenfoldConfig, *find_models(SevenfoldConfig)) if one.__name__ == name)
    rows = [
        (f"`{field.alias or key}`", _default(field), _meaning(model, key))
        for key, field in model.model_fields.items()
    ]
    return table(("key", "default", "meaning"), rows)


def describe_agents() -> str:
    """Returns the table of the keys of all kinds of agents: which kinds have them, and their defaults."""
    keys = list(dict.fromkeys(key for model in _AGENTS.values() for key in model.model_fields))
    rows = [
        ("`kind`", "all", "required", f"{', '.join(f'`{kind}`' for kind in list(_AGENTS)[:-1])} or `simulator`"),
        *(_agent_row(key) for key in keys if key != "kind"),
    ]
    return table(("key", "kinds", "default", "meaning"), rows)


def _agent_row(key: str) -> tuple[str, ...]:
    fields = {kind: model.model_fields[key] for kind, model in _AGENTS.items() if key in model.model_fields}
    defaults = {kind: _default(field) for kind, field in fields.items()}
    common = Counter(defaults.values()).most_common(1)[0][0]
    special = [f"`{kind}` {default}" for kind, default in defaults.items() if default != common]
    first = next(kind for kind in fields)
    return (
        f"`{key}`",
        _kinds(list(fields)),
        "; ".join([common, *special]),
        _meaning(_AGENTS[first], key),
    )


def _kinds(having: list[str]) -> str:
    missing = [kind for kind in _AGENTS if kind not in having]
    if not missing:
        return "all"
    if len(missing) == 1:
        return f"all but `{missing[0]}`"
    return ", ".join(f"`{kind}`" for kind in having)


def _meaning(model: type[BaseModel], key: str) -> str:
    return describe_field(model, key).replace("|", "\\|")


def _default(field: FieldInfo) -> str:
    """Returns a cell of the table: `none` for what is absent or empty."""
    value: Any = field.get_default(call_default_factory=True, validated_data={})
    if field.is_required():
        return "required"
    if isinstance(value, BaseModel):
        return "its own"
    if value is None or (not isinstance(value, bool | int | float) and not value):
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return f"`{','.join(f'{one:g}' if isinstance(one, float) else str(one) for one in value)}`"
    if isinstance(value, frozenset | list):
        return f"`{sorted(str(one) for one in value)}`".replace("'", '"')
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"
