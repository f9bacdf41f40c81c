"""The key that seals webhook secrets: from the environment, or from a file that the first start makes."""

import base64
import os
import secrets
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from sevenfold.adapters.webhooks.sealing import KEY_BYTES, Sealer
from sevenfold.runtime.settings import Settings, uses_own_cluster
from sevenfold.runtime.startup import StartupError

_HOW_TO_MAKE = "Make one with: openssl rand -base64 32"


def load_sealer(settings: Settings) -> Sealer | None:
    """The sealer that all processes of this Sevenfold share. Raises StartupError.

    None when there cannot be one: at a Temporal of its own, API and workers may run on several hosts, and a key
    that one of them makes would be unknown to the others. Such a Sevenfold takes no webhook secrets before it is
    given SEVENFOLD_SECRET_KEY.
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
            which = f"key {number} of {len(parts)}" if len(parts) > 1 else "it"
            raise StartupError(
                f"SEVENFOLD_SECRET_KEY cannot be used: {which} is not the base64 of {KEY_BYTES} bytes. "
                f"Several are separated by commas; the first seals, all open. {_HOW_TO_MAKE}"
            )
        keys.append(key)
    return keys


def _load_or_create(path: Path) -> bytes:
    """The key in the file, which is made if there is none."""
    try:
        if not path.exists():
            _create(path)
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            content = file.read(1000)
    except OSError as error:
        raise StartupError(
            f"The key that seals webhook secrets cannot be kept in {path}: {error.strerror}. Make it accessible, or "
            f"set SEVENFOLD_SECRET_KEY. {_HOW_TO_MAKE}"
        ) from None
    if mode & 0o077:
        raise StartupError(
            f"{path} seals webhook secrets, and others than its owner may use it (mode {mode:o}). "
            f"Keep it to yourself: chmod 600 {path}"
        )
    key = _decode_key(content.strip())
    if key is None:
        raise StartupError(
            f"{path} does not hold the base64 of {KEY_BYTES} bytes. Put back what it held: webhook secrets of "
            "deliveries that are still to be made do not open without. If there are none, remove the file, and a "
            "new one is made."
        )
    return key


def _create(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Written beside and then linked: the file is there whole or not at all, and the first of several processes wins.
    # It is for its owner only from the beginning.
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
