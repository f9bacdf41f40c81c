"""The key that seals webhook secrets: from the environment, or from a file that the first start creates."""

import base64
import os
import secrets
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from sevenfold.adapters.encryption.sealing import KEY_BYTES, Sealer
from sevenfold.runtime.config.settings import Settings, uses_own_cluster
from sevenfold.runtime.startup import StartupError

_HOW_TO_CREATE = "Create one with: openssl rand -base64 32"


def load_sealer(settings: Settings) -> Sealer | None:
    """Returns the sealer that all processes of one gateway share. Raises StartupError.

    Returns None with an external Temporal and without SEVENFOLD_SECRET_KEY: API and workers may run on several hosts,
    which would not share a created key. Such a gateway rejects webhooks.
    """
    if settings.secret_key is not None:
        return Sealer(_parse_keys(settings.secret_key.get_secret_value()))
    if uses_own_cluster():
        return None
    return Sealer([_load_or_create(settings.data_dir / "secret.key")])


def _parse_keys(value: str) -> list[bytes]:
    parts = value.split(",")
    keys = []
    for number, part in enumerate(parts, start=1):
        key = _decode_key(part.strip().encode())
        if key is None:
            which = f"key {number} of {len(parts)}" if len(parts) > 1 else "its value"
            raise StartupError(
                f"SEVENFOLD_SECRET_KEY is invalid: {which} is not the base64 of {KEY_BYTES} bytes. "
                f"Separate several keys by commas: the first seals, all open. {_HOW_TO_CREATE}"
            )
        keys.append(key)
    return keys


def _load_or_create(path: Path) -> bytes:
    """Returns the key in the file, which is created if it is missing."""
    try:
        if not path.exists():
            _create(path)
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            content = file.read(1000)
    except OSError as error:
        raise StartupError(
            f"The key that seals webhook secrets cannot be stored in {path}: {error.strerror}. Make it accessible "
            f"or set SEVENFOLD_SECRET_KEY. {_HOW_TO_CREATE}"
        ) from None
    if mode & 0o077:
        raise StartupError(
            f"{path} holds the key of webhook secrets, but other users may access it (mode {mode:o}). "
            f"Restrict it: chmod 600 {path}"
        )
    key = _decode_key(content.strip())
    if key is None:
        raise StartupError(
            f"{path} does not contain the base64 of {KEY_BYTES} bytes. Restore it: pending deliveries need the "
            "old key to open their webhook secrets. If there are none, remove the file; the next start creates "
            "a new key."
        )
    return key


def _create(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Written to a temporary file and then linked: the file is complete or missing, and the first of several processes
    # wins. Its mode is owner-only from the start.
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.") as file:
        file.write(base64.b64encode(secrets.token_bytes(KEY_BYTES)) + b"\n")
        file.flush()
        os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(file.name, path)


def _decode_key(text: bytes) -> bytes | None:
    with suppress(ValueError):
        key = base64.b64decode(text, validate=True)
        if len(key) == KEY_BYTES:
            return key
    return None
