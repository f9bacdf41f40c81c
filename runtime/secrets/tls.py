"""The certificate with which the API serves https."""

import os
import ssl
import stat
from pathlib import Path

from cryptography import x509

from sevenfold.runtime.config.settings import Settings
from sevenfold.runtime.startup import StartupError

_CERT, _KEY = "SEVENFOLD_TLS_CERT", "SEVENFOLD_TLS_KEY"


def load_tls(settings: Settings) -> ssl.SSLContext | None:
    """Returns the server's TLS context (1.2 and newer), or None if TLS is not configured. Raises StartupError."""
    cert, key = settings.tls_cert, settings.tls_key
    if cert is None and key is None:
        return None
    if cert is None or key is None:
        missing, present = (_CERT, _KEY) if cert is None else (_KEY, _CERT)
        raise StartupError(f"{present} is set without {missing}. Set both for https, or neither for http.")
    _check_certificate(cert)
    _check_key(key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    _load_chain(context, cert, key)
    return context


def _check_certificate(path: Path) -> None:
    content, _ = _read(path, _CERT)
    try:
        x509.load_pem_x509_certificates(content)
    except ValueError:
        raise StartupError(
            f"{_CERT}={path} contains no certificate in PEM form (-----BEGIN CERTIFICATE-----). The server's own "
            "comes first, then the intermediate ones."
        ) from None


def _check_key(path: Path) -> None:
    _, status = _read(path, _KEY)
    # A group may read a key of root: so Debian's group ssl-cert, and secrets that Kubernetes mounts.
    forbidden = 0o037 if status.st_uid == 0 else 0o077
    mode = stat.S_IMODE(status.st_mode)
    if mode & forbidden:
        raise StartupError(
            f"{_KEY}={path} is a private key, but other users may access it (mode {mode:o}). "
            f"Restrict it: chmod 600 {path}"
        )


def _read(path: Path, variable: str) -> tuple[bytes, os.stat_result]:
    try:
        with path.open("rb") as file:
            return file.read(1_000_000), os.fstat(file.fileno())
    except OSError as error:
        raise StartupError(
            f"{variable}={path} cannot be read: {error.strerror}. It has to be a file that this user may read."
        ) from None


def _load_chain(context: ssl.SSLContext, cert: Path, key: Path) -> None:
    encrypted = False

    def on_encrypted() -> str:
        nonlocal encrypted
        encrypted = True
        return ""

    try:
        context.load_cert_chain(cert, key, password=on_encrypted)
    except (ssl.SSLError, OSError) as error:
        if encrypted:
            raise StartupError(
                f"{_KEY}={key} is encrypted with a passphrase, which is not supported. Decrypt it into a file of "
                f"mode 600: openssl pkey -in {key} -out server.key"
            ) from None
        reason = getattr(error, "reason", None)
        if reason == "KEY_VALUES_MISMATCH":
            raise StartupError(
                f"{_KEY}={key} is not the key of the first certificate in {_CERT}={cert}. The server's own "
                "certificate comes first, then the intermediate ones."
            ) from None
        detail = f" ({reason})" if reason else ""
        raise StartupError(
            f"{_CERT}={cert} and {_KEY}={key} cannot be used{detail}. The key has to be a private key in PEM form."
        ) from None
