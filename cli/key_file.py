"""Adds, rotates and removes keys in `sevenfold.toml`, beside what is there: comments and order stay."""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import tomlkit
from pydantic import ValidationError
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import AoT, InlineTable, Table

from sevenfold.contracts.access.api_keys import NewKey
from sevenfold.contracts.config.access import KeyConfig
from sevenfold.runtime.config.config_file import load_config
from sevenfold.runtime.startup import StartupError


def render_key(tenant: str, key: Table) -> str:
    """Returns the lines of a key for the file."""
    document = tomlkit.document()
    keys = tomlkit.aot()
    keys.append(key)
    document["tenants"] = {tenant: {"keys": keys}}
    return tomlkit.dumps(document).strip()


def build_key(new: NewKey, scopes: list[str], name: str, rate: str | None, expires: datetime | None) -> Table:
    """Returns the table of a key."""
    table = tomlkit.table()
    table["id"], table["hash"], table["scopes"] = new.key_id, new.hash, scopes
    if name:
        table["name"] = name
    if rate is not None:
        table["rate"] = rate
    if expires is not None:
        table["expires"] = expires
    return table


def add_key(path: Path, tenant: str, key: Table) -> None:
    """Adds a key to the file, which is created if it is missing. Raises StartupError if the file is or would become
    invalid.
    """
    with _editing(path) as document:
        tenants = document.setdefault("tenants", tomlkit.table(is_super_table=True))
        section = tenants.setdefault(tenant, tomlkit.table(is_super_table=True))
        if isinstance(section, InlineTable) or isinstance(tenants, InlineTable):
            raise StartupError(
                f"{path} has tenants in braces, to which no key can be added. Write them as [tenants.{tenant}] first."
            )
        if not section.get("keys"):  # None, or an empty list
            section["keys"] = tomlkit.aot()
        if not isinstance(section["keys"], AoT):
            raise StartupError(
                f"{path} has keys in brackets, to which none can be added. Write them as [[tenants.{tenant}.keys]]."
            )
        section["keys"].append(key)


def rotate_key(path: Path, key_id: str, new: NewKey, overlap: timedelta) -> None:
    """Adds a key with the terms of this one, which then expires after `overlap`. Raises as `add_key` does."""
    with _editing(path) as document:
        keys, old = _find(path, document, key_id)
        now = datetime.now(UTC).replace(microsecond=0)
        expires = KeyConfig.model_validate(old.unwrap()).expires
        if expires is not None and expires <= now:
            raise StartupError(f"The key {key_id} has expired. Create a new one.")
        successor = tomlkit.table()
        for name, value in old.items():
            successor[name] = {"id": new.key_id, "hash": new.hash}.get(name, value)
        successor["lineage"] = old.get("lineage", key_id)
        keys.append(successor)
        if expires is None or now + overlap < expires:
            old["expires"] = now + overlap


def remove_key(path: Path, key_id: str) -> None:
    """Removes a key. Raises as `add_key` does."""
    with _editing(path) as document:
        keys, key = _find(path, document, key_id)
        del keys[keys.index(key)]


def _find(path: Path, document: tomlkit.TOMLDocument, key_id: str) -> tuple[AoT, Any]:
    for tenant in document.get("tenants", {}).values():
        for key in tenant.get("keys", []):
            if key.get("id") == key_id:
                return tenant["keys"], key
    raise StartupError(f"{path} has no key {key_id}.")


@contextmanager
def _editing(path: Path) -> Iterator[tomlkit.TOMLDocument]:
    """The file's document, which replaces the file in one step if it is valid. One process edits at a time."""
    try:
        path = path.resolve(strict=path.is_symlink())  # A link stays a link.
        if path.exists() and not path.is_file():
            raise StartupError(f"{path} is not a file.")
        with _locked(path.parent):
            document = _read(path)
            yield document
            _replace(path, tomlkit.dumps(document))
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise StartupError(f"{path} cannot be changed: {error}") from None
    except (TypeError, AttributeError, KeyError) as error:
        raise StartupError(f"{path} has tenants in a form that cannot be edited: {error!r}. Add the lines.") from None
    except ValidationError as error:
        mistake = error.errors(include_input=False)[0]["msg"]
        raise StartupError(f"{path} has a key with a mistake: {mistake}") from None


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Locks the directory itself, which leaves no file behind."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _read(path: Path) -> tomlkit.TOMLDocument:
    try:
        # Line ends stay as they are.
        with path.open(encoding="utf-8", newline="") as file:
            return tomlkit.parse(file.read())
    except FileNotFoundError:
        return tomlkit.document()
    except (UnicodeDecodeError, TOMLKitError) as error:
        raise StartupError(f"{path} cannot be read: {error}") from None


def _replace(path: Path, text: str) -> None:
    with tempfile.NamedTemporaryFile("wb", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        temporary = Path(file.name)
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())
    try:
        load_config(temporary)
        if path.exists():
            before = path.stat()
            temporary.chmod(before.st_mode & 0o777)
            if (before.st_uid, before.st_gid) != (os.getuid(), os.getgid()):
                os.chown(temporary, before.st_uid, before.st_gid)  # The gateway may run as another user.
        temporary.replace(path)
    except StartupError as error:
        raise StartupError(str(error).replace(str(temporary), str(path))) from None
    finally:
        temporary.unlink(missing_ok=True)
