"""Reads `sevenfold.toml`."""

import os
import tomllib
from pathlib import Path

from pydantic import ValidationError

from sevenfold.contracts.config.schema import SevenfoldConfig
from sevenfold.contracts.json.strict import JsonLimitError, check_value
from sevenfold.runtime.config.config_errors import describe_errors
from sevenfold.runtime.startup import StartupError


def load_config(path: Path) -> SevenfoldConfig:
    """Returns the configuration in the file, or the defaults if the default file does not exist.

    Raises StartupError, which lists every mistake with its line and key.
    """
    if not _exists(path):
        if "SEVENFOLD_CONFIG" in os.environ:
            raise StartupError(f"SEVENFOLD_CONFIG names {path}, which does not exist.")
        return SevenfoldConfig()
    try:
        text = path.read_text(encoding="utf-8")
        raw = tomllib.loads(text)
    except RecursionError:
        raise StartupError(f"{path} is not valid TOML: it is nested too deep") from None
    except ValueError as error:
        raise StartupError(f"{path} is not valid TOML: {error}") from None
    except OSError as error:
        raise StartupError(f"{path} cannot be read: {error.strerror}") from None
    try:
        check_value(raw)
        return SevenfoldConfig.model_validate(raw)
    except JsonLimitError as error:
        raise StartupError(f"{path} exceeds a limit: {error}.") from None
    except ValidationError as error:
        raise StartupError(describe_errors(path, text, error)) from None


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise StartupError(f"{path} cannot be read: {error.strerror}") from None
