"""`sevenfold verify-webhook`: verifies the signature of a recorded delivery."""

import os
import time
from pathlib import Path
from typing import Annotated

import typer

from sevenfold.adapters.webhooks.signatures import (
    TOLERANCE_SECONDS,
    SignatureError,
    SignatureForm,
    join_headers,
    verify,
)

DEFAULT_SECRET_ENV = "SEVENFOLD_WEBHOOK_SECRET"  # noqa: S105 (a variable's name)


def verify_webhook(
    headers: Annotated[
        typer.FileBinaryRead,
        typer.Option(help="File of the received headers, `Name: value` on each line, as curl -i and -D print them."),
    ],
    body: Annotated[
        typer.FileBinaryRead, typer.Option(help="File of the received body, unchanged; - is the standard input.")
    ],
    # No option takes the secret itself, because every user of the machine can read arguments.
    secret_env: Annotated[
        str | None, typer.Option(help="Variable that holds the secret.", show_default=DEFAULT_SECRET_ENV)
    ] = None,
    secret_file: Annotated[
        Path | None, typer.Option(help="File that holds the secret.", exists=True, dir_okay=False)
    ] = None,
    tolerance: Annotated[
        float, typer.Option(min=0, help="Maximum difference between the webhook's timestamp and now, in seconds.")
    ] = TOLERANCE_SECONDS,
    now: Annotated[
        float | None, typer.Option(help="When it was received, in Unix seconds.", show_default="now")
    ] = None,
) -> None:
    """Verifies the signature of a webhook that you received.

    Exits with 0 if it is valid, else prints the reason and exits with 1.
    """
    secret = _secret(secret_env, secret_file)
    arrived = time.time() if now is None else now
    try:
        form = verify([secret], _headers(headers.read()), body.read(), now=arrived, tolerance=tolerance)
    except SignatureError as error:
        typer.echo(f"invalid: {error}", err=True)
        raise typer.Exit(1) from None
    if form is SignatureForm.STANDARD:
        typer.echo(f"valid: {form}")
    else:
        typer.echo(f"valid: {form} (it covers neither timestamp nor id, so this may be a replay)")


def _secret(variable: str | None, file: Path | None) -> str:
    if variable is not None and file is not None:
        raise typer.BadParameter("set --secret-env or --secret-file, not both")
    source = str(file) if file is not None else variable or DEFAULT_SECRET_ENV
    raw = file.read_bytes() if file is not None else os.fsencode(os.environ.get(source, ""))
    try:
        # Editors end a file with a newline, which is not part of the secret.
        secret = raw.decode("utf-8").strip("\r\n")
    except UnicodeDecodeError:
        raise typer.BadParameter(f"the secret in {source} is not UTF-8") from None
    if not secret:
        raise typer.BadParameter(f"{source} holds no secret. Set --secret-env or --secret-file.")
    return secret


def _headers(raw: bytes) -> dict[str, str]:
    """Parses the first block of headers, with or without a request or status line before it."""
    pairs = []
    # Latin-1 decodes every byte. Not `splitlines`: it also splits at characters that a header may contain.
    for number, line in enumerate(raw.decode("latin-1").split("\n"), start=1):
        if not line.strip():
            break
        name, colon, value = line.partition(":")
        if not colon or " " in name:
            if number == 1:
                continue
            raise typer.BadParameter(f"line {number} is not `Name: value`", param_hint="--headers")
        pairs.append((name, value.strip()))
    return join_headers(pairs)
