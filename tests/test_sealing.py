"""Sealed secrets, and the key that they are sealed with."""

import base64
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sevenfold.adapters.encryption.sealing import Sealer, SealError
from sevenfold.runtime.config.settings import Settings, load_settings
from sevenfold.runtime.secrets.secret_key import load_sealer
from sevenfold.runtime.startup import StartupError
from tests.support.stack import ROOT

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

# The first example may wait for an import.
unhurried = settings(deadline=None)

A, B = bytes(32), bytes(range(32))


@unhurried
@given(text=st.text(), context=st.text("abc_019"))
def test_sealed_text_opens_in_its_own_context_only(text: str, context: str) -> None:
    sealed = Sealer([A]).seal(text, context=context)
    assert sealed.isascii()
    assert sealed != Sealer([A]).seal(text, context=context)
    assert Sealer([B, A]).unseal(sealed, context=context) == text
    with pytest.raises(SealError, match="not sealed for"):
        Sealer([A]).unseal(sealed, context=f"{context}x")


def test_sealed_text_does_not_contain_the_secret() -> None:
    sealed = Sealer([A]).seal(SECRET, context="task_1")
    data = base64.urlsafe_b64decode(sealed.split(".")[2] + "==")
    for part in (SECRET, SECRET[6:], base64.b64encode(SECRET.encode()).decode()):
        assert part not in sealed
        assert part.encode() not in data


def test_sealing_keys_rotate() -> None:
    before = Sealer([A]).seal(SECRET, context="c")
    both = Sealer([B, A])
    assert both.unseal(before, context="c") == SECRET
    assert Sealer([B]).unseal(both.seal(SECRET, context="c"), context="c") == SECRET
    with pytest.raises(SealError, match="which SEVENFOLD_SECRET_KEY does not contain") as message:
        Sealer([B]).unseal(before, context="c")
    assert before.split(".")[1] in str(message.value)
    assert SECRET not in str(message.value)


# The last character has bits to spare: another one decodes to the same bytes.
SEALED = Sealer([A]).seal("open", context="c")
ALIKE = SEALED[:-1] + chr(ord(SEALED[-1]) + 1)


@unhurried
@given(st.integers(0, len(SEALED) - 1), st.text(max_size=2), st.integers(0, 2))
def test_tampered_sealed_text_is_refused(at: int, text: str, instead_of: int) -> None:
    changed = SEALED[:at] + text + SEALED[at + instead_of :]
    assume(changed != SEALED)
    with pytest.raises(SealError):
        Sealer([A]).unseal(changed, context="c")


@pytest.mark.parametrize(
    "sealed",
    ["", "sf1", SECRET, SEALED[:18], SEALED[:20], SEALED[:30], SEALED + "=", SEALED + "\n", ALIKE],
    ids=range(9),
)
def test_text_that_was_never_sealed_is_refused(sealed: str) -> None:
    with pytest.raises(SealError):
        Sealer([A]).unseal(sealed, context="c")


@pytest.mark.parametrize("keys", [[], [b"short"], [A, bytes(16)]])
def test_sealing_keys_must_have_32_bytes(keys: list[bytes]) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Sealer(keys)


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.delenv("TEMPORAL_ADDRESS", raising=False)
    monkeypatch.delenv("SEVENFOLD_SECRET_KEY", raising=False)
    return Settings(data_dir=tmp_path / "new" / "data")


def unsealed(settings: Settings, sealed: str) -> str:
    sealer = load_sealer(settings)
    assert sealer is not None
    return sealer.unseal(sealed, context="c")


def test_sealing_key_is_read_from_the_environment(local: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEMPORAL_ADDRESS", "temporal.example:7233")
    monkeypatch.setenv("SEVENFOLD_SECRET_KEY", ", ".join(base64.b64encode(key).decode() for key in (B, A)))
    given_settings = load_settings()
    assert unsealed(given_settings, SEALED) == "open"
    assert base64.b64encode(A).decode() not in repr(given_settings)
    assert not local.data_dir.exists()


def test_without_a_key_a_distributed_gateway_has_no_sealer(local: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEMPORAL_ADDRESS", "temporal.example:7233")
    assert load_sealer(local) is None
    assert not local.data_dir.exists()


@pytest.mark.parametrize("value", ["", "changeme", "é", "AAAA", base64.b64encode(A).decode() + ","])
def test_invalid_sealing_key_is_not_shown_in_the_error(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("SEVENFOLD_SECRET_KEY", value)
    with pytest.raises(StartupError, match=r"SEVENFOLD_SECRET_KEY.*openssl rand -base64 32") as message:
        load_sealer(load_settings())
    assert not value or value not in str(message.value)


def test_generated_key_file_is_readable_by_its_owner_only(local: Settings) -> None:
    sealer = load_sealer(local)
    assert sealer is not None
    path = local.data_dir / "secret.key"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in local.data_dir.iterdir()] == ["secret.key"]
    assert unsealed(local, sealer.seal(SECRET, context="c")) == SECRET
    # what is in the file can be moved into the variable
    moved = Settings(secret_key=path.read_text(), data_dir=local.data_dir / "elsewhere")  # type: ignore[arg-type]
    assert unsealed(moved, sealer.seal(SECRET, context="c")) == SECRET


@pytest.mark.parametrize(
    ("content", "mode", "message"),
    [
        (base64.b64encode(A), 0o640, "chmod 600"),
        (base64.b64encode(A), 0o604, "mode 604"),
        (b"", 0o600, "does not contain"),
        (b"\xff\x00", 0o600, "does not contain"),
        (base64.b64encode(A)[:-4], 0o600, "does not contain"),
    ],
)
def test_unsafe_key_file_is_refused(local: Settings, content: bytes, mode: int, message: str) -> None:
    local.data_dir.mkdir(mode=0o700, parents=True)
    path = local.data_dir / "secret.key"
    path.write_bytes(content)
    path.chmod(mode)
    with pytest.raises(StartupError, match=message):
        load_sealer(local)
    assert path.read_bytes() == content


def test_key_file_that_cannot_be_created_is_explained(local: Settings) -> None:
    (local.data_dir / "secret.key").mkdir(parents=True)
    with pytest.raises(StartupError, match="SEVENFOLD_SECRET_KEY"):
        load_sealer(local)


# Many beginnings at the same moment, each in a directory of its own.
STARTING = """
import sys, time
from pathlib import Path
from sevenfold.runtime.secrets.secret_key import load_sealer
from sevenfold.runtime.config.settings import Settings
print(flush=True)
begin = float(sys.stdin.readline())
for number in range(50):
    while time.time() < begin + number / 50:
        pass
    print(load_sealer(Settings(data_dir=Path(sys.argv[1], str(number)))).seal("x", context="c"))
"""


def test_processes_that_start_concurrently_get_the_same_key(local: Settings) -> None:
    command = [sys.executable, "-c", STARTING, str(local.data_dir)]
    processes = [
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    begin = f"{time.time() + 0.1}\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(begin)
        process.stdin.flush()
    outputs = [process.communicate(timeout=30)[0].split() for process in processes]
    assert [len(sealed) for sealed in outputs] == [50] * 3
    for number in range(50):
        own = local.model_copy(update={"data_dir": local.data_dir / str(number)})
        assert [unsealed(own, sealed[number]) for sealed in outputs] == ["x"] * 3
