"""Adds, rotates and removes keys in `sevenfold.toml`, beside what is there: comments and order stay."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import AoT, InlineTable, Table

from sevenfold.contracts.api_keys import NewKey
from sevenfold.runtime.config_file import load_config
from sevenfold.runtime.startup import StartupError


def render_key(tenant: str, key: Table) -> str:
    """Returns the lines of a key for the file."""
    document = tomlkit.document()
    keys = tomlkit.aot()
    keys.append(key)
    document["tenants"] = {tenant: {"keys": keys}}
    return tomlkit.dumps(document).strip()


def build_key(new: NewKey, scopes: list[str], name: str, expires: datetime | None) -> Table:
    """Returns the table of a key."""
    table = tomlkit.table()
    table["id"], table["hash"], table["scopes"] = new.key_id, new.hash, scopes
    if name:
        table["name"] = name
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
        section.setdefault("keys", tomlkit.aot()).append(key)


def rotate_key(path: Path, key_id: str, new: NewKey, overlap: timedelta) -> None:
    """Adds a key with the scopes of this one, which then expires after `overlap`. Raises as `add_key` does."""
    with _editing(path) as document:
        keys, old = _find(path, document, key_id)
        end = (datetime.now(UTC) + overlap).replace(microsecond=0)
        expires = old.get("expires")
        keys.append(build_key(new, list(old["scopes"]), str(old.get("name", "")), expires))
        if not isinstance(expires, datetime) or end < expires:
            old["expires"] = end


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
    """The file's document, which replaces the file in one step if it is valid."""
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        document = tomlkit.parse(text)
    except (OSError, UnicodeDecodeError, TOMLKitError) as error:
        raise StartupError(f"{path} cannot be read: {error}") from None
    try:
        yield document
    except (TypeError, AttributeError, KeyError) as error:
        raise StartupError(f"{path} has tenants in a form that cannot be edited: {error!r}. Add the lines.") from None
    _replace(path, tomlkit.dumps(document))


def _replace(path: Path, text: str) -> None:
    path = path.resolve()  # A link stays a link.
    try:
        with tempfile.NamedTemporaryFile(
            "w", dir=path.parent, prefix=f".{path.name}.", encoding="utf-8", delete=False
        ) as file:
            temporary = Path(file.name)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise StartupError(f"{path} cannot be written: {error.strerror}") from None
    try:
        load_config(temporary)
        temporary.chmod(path.stat().st_mode & 0o777 if path.exists() else 0o600)
        temporary.replace(path)
    except StartupError as error:
        raise StartupError(str(error).replace(str(temporary), str(path))) from None
    finally:
        temporary.unlink(missing_ok=True)
