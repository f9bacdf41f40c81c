"""Webhooks are signed as others verify them, nothing forged passes, and secrets are sealed by a key that stays."""

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from standardwebhooks import Webhook
from typer.testing import CliRunner

from examples.webhooks import receiver as example
from sevenfold.adapters.webhooks.signatures import SignatureError, SignatureForm, sign_headers, verify
from sevenfold.cli.verify_webhook import verify_webhook
from tests.support.stack import ROOT

EXAMPLES = ROOT / "examples" / "webhooks"
VECTORS: list[dict[str, Any]] = json.loads((EXAMPLES / "test-vector.json").read_text(encoding="utf-8"))["vectors"]

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_EVB6Di9eadXfpApiob17buV+a82FxnybhDGzb/8hxDc="
ID, NOW, BODY = "msg_1", 1_764_000_000, '{"summary":"Grüße 🎉"}'.encode()
GOOD = sign_headers([SECRET], ID, NOW, BODY)
BODY_ONLY = {"X-Webhook-Signature": GOOD["X-Webhook-Signature"]}

# Not base64, not of 24 to 64 bytes, or without the prefix.
UNDECODABLE = ["whsec_abc123", "whsec_", "whsec_ä", "whsec_" + "A" * 29, "whsec_" + "A" * 88, "A" * 32]
UNDECODABLE += [f"whsec_{'A' * 32}{end}" for end in (" ", "\n", "=A", "-_AA")]

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="there is no node")

# The first example of each may wait for an import.
unhurried = settings(deadline=None)

ids = st.text("abcXYZ019_-", min_size=1, max_size=40)
times = st.integers(1, 4_000_000_000)
secrets = st.binary(min_size=24, max_size=64).map(lambda key: f"whsec_{base64.b64encode(key).decode()}")


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_published_test_vectors_verify(vector: dict[str, Any]) -> None:
    body, headers = vector["body"].encode(), vector["headers"]
    assert sign_headers(vector["secrets"], vector["id"], vector["timestamp"], body) == headers
    for secret in vector["secrets"]:
        assert verify([secret], headers, body, now=vector["timestamp"]) is SignatureForm.STANDARD
        by_name = {name.lower(): value for name, value in headers.items()}
        assert example.verify(secret, by_name, body, vector["timestamp"]) == vector["id"]
    alone = {"x-webhook-signature": headers["X-Webhook-Signature"]}
    assert verify(vector["secrets"][-1:], alone, body, now=0) is SignatureForm.BODY_ONLY


# Prints what the receiver in JavaScript makes of each case: the id, or the name of the error.
IN_NODE = """
import { verify } from "./receiver.mjs";
import { readFileSync } from "node:fs";
const results = JSON.parse(readFileSync(0)).map(([secret, headers, body, now]) => {
  try {
    return verify(secret, headers, Buffer.from(body), now);
  } catch (error) {
    return error.constructor.name;
  }
});
console.log(JSON.stringify(results));
"""


@needs_node
def test_javascript_receiver_decodes_the_same_secrets() -> None:
    cases, expected = [], []
    for vector in [*VECTORS, *(vector_of(secret) for secret in UNDECODABLE)]:
        headers = {name.lower(): value for name, value in vector["headers"].items()}
        for secret in vector["secrets"]:
            cases.append((secret, headers, vector["body"], vector["timestamp"]))
            cases.append((f"{secret}+", headers, vector["body"], vector["timestamp"]))
            expected += [vector["id"], "RefusedError"]
    command = ["node", "--input-type=module", "--eval", IN_NODE]
    done = subprocess.run(
        command, cwd=EXAMPLES, input=json.dumps(cases).encode(), capture_output=True, timeout=30, check=True
    )
    assert json.loads(done.stdout) == expected


def vector_of(secret: str) -> dict[str, Any]:
    headers = sign_headers([secret], ID, NOW, b"{}")
    return {"secrets": [secret], "id": ID, "timestamp": NOW, "body": "{}", "headers": headers}


@unhurried
@given(secret=secrets, webhook_id=ids, timestamp=times, text=st.text())
def test_signature_equals_that_of_the_standardwebhooks_library(
    secret: str, webhook_id: str, timestamp: int, text: str
) -> None:
    theirs = Webhook(secret).sign(webhook_id, datetime.fromtimestamp(timestamp, UTC), text)
    ours = sign_headers([secret], webhook_id, timestamp, text.encode())
    assert ours["webhook-signature"] == theirs
    assert sign_headers([secret.rstrip("=")], webhook_id, timestamp, text.encode())["webhook-signature"] == theirs


@unhurried
@given(new=secrets, old=secrets, text=st.text())
def test_standardwebhooks_library_verifies_with_either_secret_during_rotation(new: str, old: str, text: str) -> None:
    headers = sign_headers([new, old], ID, int(time.time()), text.encode())
    for secret in (new, old):
        Webhook(secret).verify(text, headers, json_parse=False)
        assert verify([secret], headers, text.encode(), now=time.time()) is SignatureForm.STANDARD
    alone = {"X-Webhook-Signature": headers["X-Webhook-Signature"]}
    assert verify([old], alone, text.encode(), now=0) is SignatureForm.BODY_ONLY


@pytest.mark.parametrize("secret", UNDECODABLE)
def test_secret_that_is_not_base64_is_used_verbatim(secret: str) -> None:
    theirs = Webhook(secret.encode()).sign(ID, datetime.fromtimestamp(NOW, UTC), "{}")
    headers = vector_of(secret)["headers"]
    assert headers["webhook-signature"] == theirs
    assert example.verify(secret, headers, b"{}", NOW) == ID


@pytest.mark.parametrize(
    "arguments", [([], ID), ([""], ID), ([SECRET, ""], ID), (["\ud800"], ID), ([SECRET], ""), ([SECRET], "a.b")]
)
def test_unsignable_input_is_refused(arguments: tuple[list[str], str]) -> None:
    with pytest.raises(ValueError, match=r"secret|webhook-id|surrogates"):
        sign_headers(*arguments, NOW, BODY)


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({}, "missing header: neither"),
        ({"webhook-id": ID}, "missing header: webhook-timestamp"),
        (GOOD | {"webhook-id": "a.b"}, "malformed: webhook-id"),
        (GOOD | {"webhook-id": "Ω"}, "malformed: webhook-id"),
        (GOOD | {"Webhook-Id": "msg_2"}, "malformed: webhook-id"),
        (GOOD | {"webhook-timestamp": "٣"}, "malformed: webhook-timestamp"),
        (GOOD | {"webhook-timestamp": "1e9"}, "malformed: webhook-timestamp"),
        (GOOD | {"webhook-timestamp": "9" * 5000}, "malformed: webhook-timestamp"),
        (GOOD | {"webhook-signature": ""}, "malformed: webhook-signature"),
        (GOOD | {"webhook-signature": "v1"}, "malformed: webhook-signature"),
        (GOOD | {"webhook-signature": "v1,=" * 9}, "malformed: webhook-signature"),
        (GOOD | {"webhook-signature": "v1,\ud800é"}, "malformed: webhook-signature"),
        (GOOD | {"webhook-signature": GOOD["webhook-signature"].replace("v1,", "v1a,")}, "malformed"),
        (GOOD | {"webhook-signature": f"v1,{'A' * 43}="}, "webhook-signature does not match"),
        ({"X-Webhook-Signature": "sha256=é"}, "malformed: X-Webhook-Signature"),
        ({"X-Webhook-Signature": BODY_ONLY["X-Webhook-Signature"].replace("sha256", "sha1")}, "malformed"),
        ({"X-Webhook-Signature": "sha256=" + "0" * 64}, "X-Webhook-Signature does not match"),
        # The form that is valid does not make up for the better one that is not.
        (BODY_ONLY | {"webhook-signature": f"v1,{'A' * 43}="}, "missing header: webhook-id"),
    ],
)
def test_verification_failure_names_the_reason(headers: dict[str, str], reason: str) -> None:
    with pytest.raises(SignatureError, match=reason):
        verify([SECRET, OTHER], headers, BODY, now=NOW)


def test_one_valid_signature_among_several_is_enough() -> None:
    headers = GOOD | {"webhook-signature": f"v1a,xyz  v1,??? v1,{'A' * 43}= {GOOD['webhook-signature']}"}
    assert verify([OTHER, SECRET], headers, BODY, now=NOW) is SignatureForm.STANDARD
    assert verify(
        [SECRET], {"X-WEBHOOK-SIGNATURE": GOOD["X-Webhook-Signature"].upper().replace("SHA", "sha")}, BODY, now=0
    )


@pytest.mark.parametrize("offset", [-300, 0, 300])
def test_timestamp_within_the_tolerance_verifies(offset: int) -> None:
    verify([SECRET], GOOD, BODY, now=NOW + offset)


@pytest.mark.parametrize(
    ("offset", "reason"), [(301, "too old.*301 s ago"), (-301, "in the future"), (float("nan"), "too old")]
)
def test_timestamp_beyond_the_tolerance_is_refused(offset: float, reason: str) -> None:
    with pytest.raises(SignatureError, match=reason):
        verify([SECRET], GOOD, BODY, now=NOW + offset)


@unhurried
@given(st.sampled_from(sorted(GOOD)), st.data())
def test_changed_header_is_refused(name: str, data: st.DataObject) -> None:
    value = GOOD[name]
    at = data.draw(st.integers(0, len(value) - 1))
    changed = value[:at] + data.draw(st.characters()) + value[at + data.draw(st.integers(0, 1)) :]
    assume(changed.lower() != value.lower() or (changed != value and name != "X-Webhook-Signature"))
    assume(name != "webhook-signature" or GOOD[name] not in changed.split(" "))
    headers = GOOD if name != "X-Webhook-Signature" else {}
    with pytest.raises(SignatureError):
        verify([SECRET], headers | {name: changed}, BODY, now=NOW)


@unhurried
@given(st.binary(max_size=60), st.sampled_from([GOOD, BODY_ONLY]))
def test_changed_body_is_refused(body: bytes, headers: dict[str, str]) -> None:
    assume(body != BODY)
    with pytest.raises(SignatureError, match="does not match"):
        verify([SECRET], headers, body, now=NOW)


@unhurried
@given(st.dictionaries(st.sampled_from([*GOOD, "Webhook-ID", "webhook-SIGNATURE"]), st.text()))
def test_arbitrary_headers_raise_only_verification_errors(headers: dict[str, str]) -> None:
    with pytest.raises(SignatureError):
        verify([SECRET], headers, BODY, now=NOW)


@pytest.fixture
def delivery(tmp_path: Path) -> list[str]:
    """A delivery in files, as options of the command."""
    headers = "".join(f"{name}: {value}\r\n" for name, value in GOOD.items())
    (tmp_path / "headers").write_bytes(f"POST /hook?a:b HTTP/1.1\r\nHost: é\x85\r\n{headers}\r\nno: header".encode())
    (tmp_path / "body").write_bytes(BODY)
    return ["--headers", str(tmp_path / "headers"), "--body", str(tmp_path / "body"), "--now", str(NOW)]


def sevenfold(*arguments: str, stdin: bytes = b"", **environ: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "sevenfold", "verify-webhook", *arguments]
    return subprocess.run(command, cwd=ROOT, env=os.environ | environ, input=stdin, capture_output=True, timeout=60)


def test_verify_webhook_command_accepts_a_real_delivery(delivery: list[str], tmp_path: Path) -> None:
    done = sevenfold(*delivery, SEVENFOLD_WEBHOOK_SECRET=SECRET)
    assert (done.returncode, done.stdout) == (0, b"valid: webhook-signature\n"), done.stderr
    (tmp_path / "secret").write_text(f"{OTHER}\n")
    done = sevenfold(*delivery, "--secret-file", str(tmp_path / "secret"), "--body", "-", stdin=BODY)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith(b"invalid: webhook-signature does not match")
    assert OTHER.encode() not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "output"),
    [
        (["--secret-file", "secret"], 0, "valid: webhook-signature"),
        (["--secret-env", "ELSEWHERE"], 0, "valid: webhook-signature"),
        (["--secret-env", "ELSEWHERE", "--now", str(NOW + 400)], 1, "invalid: too old"),
        (["--secret-env", "ELSEWHERE", "--now", str(NOW + 400), "--tolerance", "400"], 0, "valid"),
        (["--secret-env", "ELSEWHERE", "--headers", "body_only"], 0, "replay"),
        (["--secret-env", "ELSEWHERE", "--headers", "twice"], 1, "malformed: webhook-id"),
        (["--secret-env", "ELSEWHERE", "--headers", "body"], 1, "missing header"),
        (["--secret-env", "ELSEWHERE", "--headers", "broken"], 2, "line 2"),
        (["--secret-env", "ELSEWHERE", "--headers", "nowhere"], 2, "nowhere"),
        (["--secret-env", "BROKEN"], 2, "not UTF-8"),
        (["--secret-env", "ELSEWHERE", "--secret-file", "secret"], 2, "not both"),
        ([], 2, "SEVENFOLD_WEBHOOK_SECRET"),
    ],
)
def test_verify_webhook_command_explains_its_result(
    delivery: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    output: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.delenv("SEVENFOLD_WEBHOOK_SECRET", raising=False)
    monkeypatch.setenv("ELSEWHERE", SECRET)
    monkeypatch.setitem(os.environ, "BROKEN", "\udcff")
    Path("secret").write_text(f"{SECRET}\r\n")
    Path("body_only").write_text(f"X-Webhook-Signature: {GOOD['X-Webhook-Signature']}\n")
    Path("twice").write_text("\n".join(f"{name}: {value}" for name, value in [("Webhook-Id", "2"), *GOOD.items()]))
    Path("broken").write_text("a: b\nbroken\n")
    app = typer.Typer()
    app.command()(verify_webhook)
    done = CliRunner().invoke(app, [*delivery, *arguments])
    assert done.exit_code == code, done.output
    assert output in done.output
    assert (done.stdout == "") == (code != 0)


@dataclass
class Running:
    """An example receiver in a process of its own."""

    port: int
    process: subprocess.Popen[str]

    def post(self, headers: dict[str, Any], body: bytes = BODY) -> httpx.Response:
        return httpx.post(f"http://127.0.0.1:{self.port}", headers=headers, content=body, trust_env=False, timeout=30)

    def send(self, raw: bytes) -> socket.socket:
        """Sends a request from behind its `Host` on."""
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        sock.sendall(b"POST / HTTP/1.1\r\nHost: x\r\n" + raw)
        return sock

    def lines(self) -> list[str]:
        """Stops the process and returns its output."""
        self.process.terminate()
        assert self.process.stdout is not None
        return self.process.stdout.read().splitlines()


@contextmanager
def running(command: list[str], **environ: str) -> Iterator[Running]:
    environ = os.environ | {"WEBHOOK_SECRET": SECRET, "PORT": "0"} | environ
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True, encoding="utf-8") as process:
        try:
            assert process.stdout is not None
            yield Running(int(process.stdout.readline().split()[-1]), process)
        finally:
            process.kill()


receivers = pytest.mark.parametrize(
    "command",
    [
        pytest.param([sys.executable, str(EXAMPLES / "receiver.py")], id="python"),
        pytest.param(["node", str(EXAMPLES / "receiver.mjs")], id="node", marks=needs_node),
    ],
)


@receivers
def test_example_receivers_accept_a_genuine_delivery_once(command: list[str]) -> None:
    now = int(time.time())
    with running(command) as receiver:
        first = sign_headers([SECRET], "msg_1", now - 200, BODY)
        assert receiver.post(first).status_code == 204
        # tried again because the answer was lost, and meanwhile the secret began to change
        assert receiver.post(sign_headers([OTHER, SECRET], "msg_1", now, BODY)).status_code == 204
        receiver.send(b"Content-Length: 100\r\n\r\nbroken off").close()
        assert receiver.post(sign_headers([SECRET, OTHER], "msg_2", now, b""), b"").status_code == 204
        assert receiver.lines() == [f"received msg_1 {BODY.decode()}", "again msg_1", "received msg_2 "]


@receivers
def test_example_receivers_refuse_invalid_deliveries(command: list[str]) -> None:
    now = int(time.time())
    good = sign_headers([SECRET], "msg_1", now, BODY)
    stale, early = (sign_headers([SECRET], "msg_1", now + offset, BODY) for offset in (-310, 600))
    forged = sign_headers([OTHER], "msg_1", now, BODY)
    moved = good | {"webhook-id": f"msg_1.{now}", "webhook-timestamp": str(now)}
    with running(command) as receiver:
        for headers in (stale, early, forged, moved, {}, {name: "\xe9".encode("latin-1") for name in good}):
            answer = receiver.post(headers)
            assert answer.status_code == 401
            assert "webhook-" in answer.text
        for name in good.keys() - BODY_ONLY.keys():
            assert receiver.post({key: value for key, value in good.items() if key != name}).status_code == 401
        assert receiver.post({"X-Webhook-Signature": good["X-Webhook-Signature"]}).status_code == 401
        assert receiver.post(good | {"Webhook-Id": "msg_2"}).status_code == 401
        assert receiver.post(good, BODY + b" ").status_code == 401
        for length, status in ((b"", b"411"), (b"Content-Length: 99999999\r\n", b"413")):
            with receiver.send(length + b"\r\n") as sock:
                assert sock.recv(100).split()[1] == status
        assert receiver.lines() == []


@receivers
def test_example_receivers_accept_the_plain_hmac_form_if_configured(command: list[str]) -> None:
    with running(command, ACCEPT_BODY_ONLY="1", WEBHOOK_SECRET="whsec_abc123") as receiver:
        headers = sign_headers(["whsec_abc123"], ID, 1, BODY)
        assert receiver.post(headers).status_code == 401
        alone = {"X-Webhook-Signature": headers["X-Webhook-Signature"]}
        assert [receiver.post(alone).status_code for _ in range(2)] == [204, 204]
        assert receiver.post(alone, b"{}").status_code == 401
        assert receiver.post({"X-Webhook-Signature": "sha256="}).status_code == 401
        assert [line.split()[0] for line in receiver.lines()] == ["received", "again"]
