"""What all sections of `sevenfold.toml` have in common."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

VariableName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class ConfigSection(BaseModel):
    """A table; a key that it does not know is a mistake."""

    model_config = ConfigDict(extra="forbid", frozen=True)
