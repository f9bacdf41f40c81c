"""The base of all sections of `sevenfold.toml`."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

VariableName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class ConfigSection(BaseModel):
    """A table; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)
