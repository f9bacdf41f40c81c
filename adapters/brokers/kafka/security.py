"""TLS and SASL of Kafka's connections."""

import ssl
from collections.abc import Mapping

from sevenfold.contracts.config.brokers import SaslConfig, TlsConfig


class KafkaSecurityError(Exception):
    """A certificate or key cannot be used. The message names the file."""


def build_security(tls: TlsConfig | None, sasl: SaslConfig | None, password: str) -> Mapping[str, object]:
    """Returns aiokafka's options. Reads the files of `tls`. Raises KafkaSecurityError."""
    protocol = f"{'SASL_' if sasl else ''}{'SSL' if tls else 'PLAINTEXT'}"
    options: dict[str, object] = {"security_protocol": protocol}
    if tls is not None:
        options["ssl_context"] = _load_context(tls)
    if sasl is not None:
        options |= {
            "sasl_mechanism": sasl.mechanism,
            "sasl_plain_username": sasl.username,
            "sasl_plain_password": password,
        }
    return options


def _load_context(tls: TlsConfig) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=tls.ca_file)
    except OSError as error:
        raise KafkaSecurityError(f"tls.ca_file = {tls.ca_file} cannot be used: {error}") from error
    if tls.cert_file is not None:
        try:
            # Without a passphrase, or the process would ask for it on the terminal.
            context.load_cert_chain(tls.cert_file, tls.key_file, password="")
        except (OSError, ValueError) as error:
            files = " and ".join(str(one) for one in (tls.cert_file, tls.key_file) if one is not None)
            raise KafkaSecurityError(f"tls.cert_file, tls.key_file: {files} cannot be used: {error}") from error
    return context
