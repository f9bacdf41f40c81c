"""Reads `sevenfold.toml`."""

import os
import tomllib
from pathlib import Path

from pydantic import ValidationError

from sevenfold.contracts.config import SevenfoldConfig
from sevenfold.contracts.strict_json import JsonLimitError, check_value
from sevenfold.runtime.startup import StartupError


def load_config(path: Path) -> SevenfoldConfig:
    """Returns the configuration in the file, or the defaults if the default file does not exist.

    Raises StartupError, which lists every mistake with its key.
    """
    if not path.exists():
        if "SEVENFOLD_CONFIG" in os.environ:
            raise StartupError(f"SEVENFOLD_CONFIG names {path}, which does not exist.")
        return SevenfoldConfig()
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise StartupError(f"{path} is not valid TOML: {error}") from None
    except OSError as error:
        raise StartupError(f"{path} cannot be read: {error.strerror}") from None
    try:
        check_value(raw)
        return SevenfoldConfig.model_validate(raw)
    except JsonLimitError as error:
        raise StartupError(f"{path} exceeds a limit: {error}.") from None
    except ValidationError as error:
        mistakes = "\n".join(f"  {_key(e['loc'])}: {e['msg']}" for e in error.errors(include_input=False))
        raise StartupError(f"{path} has mistakes:\n{mistakes}") from None


def _key(location: tuple[int | str, ...]) -> str:
    # pydantic adds the discriminator's value after the agent's name: agents.support.python.target
    parts = [str(part) for part in location]
    if parts[:1] == ["agents"] and len(parts) > 3:
        del parts[2]
    return ".".join(parts) or "the file"
