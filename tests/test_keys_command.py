"""`sevenfold keys`, as a user runs it."""

import asyncio
import os
import subprocess
import tomllib
from pathlib import Path

import pytest

from sevenfold.contracts.access.api_keys import parse_key
from tests.support.fork_server import run_sevenfold
from tests.support.stack import http_client, make_settings, sevenfold, until_ready
from tests.support.tenants import TenantKey, key_config

ADMIN = TenantKey("default", ("admin",))


def keys(directory: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return run_sevenfold("keys", *arguments, cwd=directory, env={"PATH": "/usr/bin", **variables})


def test_create_prints_the_key_alone_and_the_lines_for_the_file(tmp_path: Path) -> None:
    done = keys(tmp_path, "create", "--tenant", "acme", "--scopes", "runs:write, runs:read", "--expires", "90d")
    assert done.returncode == 0
    presented = parse_key(done.stdout.removesuffix("\n"))
    assert presented is not None
    lines = tomllib.loads(done.stderr.partition("\n\n")[2])
    (key,) = lines["tenants"]["acme"]["keys"]
    assert (key["id"], key["hash"]) == (presented.key_id, presented.hash)
    assert key["scopes"] == ["runs:read", "runs:write"]
    assert not (tmp_path / "sevenfold.toml").exists()


FILES = {
    "nothing": "",
    "a comment": "# ours\n",
    "agents": '# ours\ndefault_agent = "echo"  # why\n\n[agents.echo]\nkind = "builtin"\n',
    "a tenant": "[tenants.acme]\nweight = 2.0  # twice\n",
    "another tenant": '[tenants.beta]\nagents = ["builtin"]\n\n[interactions]\nenabled = true\n',
    "a key": key_config(TenantKey("acme")),
    "a dotted tenant": "tenants.acme.weight = 3.0\n",
    "no newline at the end": "[tenants.acme]",
    "an empty list of keys": "[tenants.acme]\nkeys = []\n",
    "line ends of Windows": "# ours\r\n[tenants.acme]\r\nweight = 2.0  # twice\r\n",
}


@pytest.mark.parametrize("name", FILES)
def test_write_adds_the_key_beside_what_is_there(tmp_path: Path, name: str) -> None:
    file = tmp_path / "sevenfold.toml"
    file.write_bytes(FILES[name].encode())
    file.chmod(0o640)
    before = tomllib.loads(FILES[name])
    done = keys(tmp_path, "create", "--tenant", "acme", "--scopes", "runs:read", "--write")
    assert done.returncode == 0, done.stderr
    presented = parse_key(done.stdout.strip())
    assert presented is not None
    after = tomllib.loads(file.read_text())
    assert after["tenants"]["acme"]["keys"][-1]["hash"] == presented.hash
    for comment in ("# ours", "# why", "# twice"):
        assert (comment in file.read_text()) == (comment in FILES[name])
    after["tenants"]["acme"]["keys"].pop()
    if not after["tenants"]["acme"]["keys"]:
        del after["tenants"]["acme"]["keys"]
    after["tenants"] = {tenant: section for tenant, section in after["tenants"].items() if section}
    before.setdefault("tenants", {})
    before["tenants"] = {tenant: section for tenant, section in before["tenants"].items() if section != {"keys": []}}
    before["tenants"] = {tenant: section for tenant, section in before["tenants"].items() if section}
    assert after == before
    assert file.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--scopes", "runs:delete"), "there is no scope runs:delete"),
        (("--scopes", ""), "name one or more of"),
        (("--scopes", "admin", "--tenant", "Circuit"), "lower-case"),
        (("--scopes", "admin", "--tenant", "circuit"), "reserved"),
        (("--scopes", "admin", "--expires", "soon"), "90d"),
    ],
)
def test_mistakes_are_explained(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    done = keys(tmp_path, "create", *arguments)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.replace("│", " ").split())
    assert done.stdout == ""


BROKEN = ["[tenants", "[agents.x]\nkind = 'nothing'\n", "tenants = 3\n"]
BROKEN += ["tenants = { default = { weight = 3.0 } }\n", "[tenants]\ndefault = { weight = 3.0 }\n"]


@pytest.mark.parametrize("text", BROKEN)
def test_a_broken_file_stays_as_it_is(tmp_path: Path, text: str) -> None:
    file = tmp_path / "sevenfold.toml"
    file.write_text(text)
    done = keys(tmp_path, "create", "--scopes", "admin", "--write")
    assert done.returncode == 2
    assert "sevenfold.toml" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert file.read_text() == text
    assert list(tmp_path.iterdir()) == [file]


def test_keys_of_the_file_are_rotated_and_revoked(tmp_path: Path) -> None:
    first = keys(tmp_path, "create", "--scopes", "runs:read", "--name", "web", "--write").stdout.strip().split("_")[1]
    second = keys(tmp_path, "rotate", first, "--overlap", "1h", "--write").stdout.strip().split("_")[1]
    old, new = tomllib.loads((tmp_path / "sevenfold.toml").read_text())["tenants"]["default"]["keys"]
    assert (old["id"], new["id"]) == (first, second)
    assert (new["scopes"], new["name"]) == (["runs:read"], "web")
    assert "expires" in old
    assert "expires" not in new
    assert keys(tmp_path, "revoke", first, "--write").returncode == 0
    (left,) = tomllib.loads((tmp_path / "sevenfold.toml").read_text())["tenants"]["default"]["keys"]
    assert left["id"] == second
    missing = keys(tmp_path, "revoke", first, "--write")
    assert missing.returncode == 2
    assert f"has no key {first}" in missing.stderr


async def test_keys_of_a_running_gateway_are_listed_rotated_and_revoked(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, more_config=key_config(ADMIN))
    with sevenfold("dev", settings) as product:
        await until_ready(settings.port, process=product)
        url = f"http://127.0.0.1:{settings.port}"
        reach = {"SEVENFOLD_URL": url, "SEVENFOLD_API_KEY": ADMIN.text}
        async with http_client(settings.port) as http:
            body = {"scopes": ["runs:read"], "name": "web"}
            path = "/api/agent/admin/tenants/default/keys"
            made = (await http.post(path, json=body, headers=ADMIN.headers)).json()
            listed = keys(tmp_path, "list", **reach)
            assert made["id"] in listed.stdout
            assert ADMIN.new.key_id in listed.stdout
            rotated = keys(tmp_path, "rotate", made["id"], **reach)
            assert parse_key(rotated.stdout.strip()) is not None
            assert keys(tmp_path, "revoke", made["id"], **reach).returncode == 0
            answer = await http.get("/api/agent/runs", headers={"X-API-Key": made["key"]})
            assert answer.status_code == 401
        without = keys(tmp_path, "list", SEVENFOLD_URL=url)
        assert without.returncode == 2
        assert "SEVENFOLD_API_KEY" in without.stderr
        fixed = keys(tmp_path, "revoke", ADMIN.new.key_id, **reach)
        assert fixed.returncode == 2
        assert "sevenfold.toml" in fixed.stderr


async def test_keys_that_are_added_at_once_are_all_there(tmp_path: Path) -> None:
    add = ("create", "--scopes", "runs:read", "--write")
    done = await asyncio.gather(*(asyncio.to_thread(keys, tmp_path, *add) for _ in range(6)))
    ids = {one.stdout.split("_")[1] for one in done}
    stored = tomllib.loads((tmp_path / "sevenfold.toml").read_text())["tenants"]["default"]["keys"]
    assert {key["id"] for key in stored} == ids
    assert len(ids) == 6


def test_a_rotation_never_makes_a_key_live_longer(tmp_path: Path) -> None:
    """A date is an end too."""
    key = TenantKey("default", more="expires = 2099-01-01")
    (tmp_path / "sevenfold.toml").write_text(key.config)
    assert keys(tmp_path, "rotate", key.new.key_id, "--overlap", "99999d", "--write").returncode == 0
    old, new = tomllib.loads((tmp_path / "sevenfold.toml").read_text())["tenants"]["default"]["keys"]
    assert str(old["expires"]) == "2099-01-01"
    assert str(new["expires"]) == "2099-01-01"


def test_a_path_that_is_not_a_file_is_explained(tmp_path: Path) -> None:
    (tmp_path / "sevenfold.toml").symlink_to("sevenfold.toml")
    for prepare in (lambda: None, lambda: os.mkfifo(tmp_path / "sevenfold.toml")):
        prepare()
        done = keys(tmp_path, "create", "--scopes", "admin", "--write")
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
        assert "sevenfold.toml" in done.stderr
        (tmp_path / "sevenfold.toml").unlink()
