"""All settings of the environment, with the prefix `SEVENFOLD_`."""

import ipaddress
import os
import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from temporalio.common import WorkerDeploymentVersion

from sevenfold.contracts.spelling import suggest
from sevenfold.contracts.webhooks.delivery import DEFAULT_SCHEDULE
from sevenfold.runtime.config.setting_values import (
    BuildId,
    DeploymentName,
    Port,
    check_levels,
    check_name,
    check_public_url,
    parse_levels,
    parse_names,
    parse_optional,
    parse_origins,
    parse_pairs,
    parse_schedule,
)
from sevenfold.runtime.config.validation_words import to_words
from sevenfold.runtime.startup import StartupError

_PREFIX = "SEVENFOLD_"

# What the commands read.
_OTHER_VARIABLES = frozenset({"SEVENFOLD_URL", "SEVENFOLD_API_KEY"})

# Kubernetes gives every container variables for the services around it.
_OF_KUBERNETES = re.compile(r"_(SERVICE|PORT)(_|$)")


class Settings(BaseSettings):
    """Settings of one process: addresses, Temporal, storage, limits."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, frozen=True)

    development: bool | None = None
    """[explains bugs](agents.md#bugs) in python agents in answers, and does not retry them; unset: in `sevenfold dev`
    """

    host: str = "127.0.0.1"
    """address to listen on. Beyond loopback, keys or an issuer are required ([security](security.md))"""
    port: Port = 8000
    """port of the API"""
    allowed_hosts: Annotated[tuple[str, ...], NoDecode, BeforeValidator(parse_names)] = ()
    """host names that requests may be addressed to, beside `localhost`, `127.0.0.1`, `::1` and the public URL's;
    separated by commas; `*` allows any
    """
    cors_origins: Annotated[tuple[str, ...], NoDecode, BeforeValidator(parse_origins)] = ()
    """origins whose web pages may call the API, such as `https://app.example.com`; separated by commas"""
    public_url: Annotated[str | None, AfterValidator(check_public_url)] = None
    """address at which clients reach the gateway: its host name is served, pages of its origin may call, and the
    AsyncAPI document names it
    """
    tls_cert: Annotated[Path | None, BeforeValidator(parse_optional)] = None
    """PEM file of the certificate, followed by the intermediate ones: the API then serves https (TLS 1.2 and newer)
    """
    tls_key: Annotated[Path | None, BeforeValidator(parse_optional)] = None
    """PEM file of its private key, without a passphrase and readable by its owner alone"""
    data_dir: Path = Path(".sevenfold")
    """directory of the embedded Temporal database, the secret key and large payloads"""
    config: Path = Path("sevenfold.toml")
    """path of the configuration file; if set, the file has to exist"""
    task_queue: Annotated[str, AfterValidator(check_name)] = "sevenfold"
    """Temporal task queue; others derive from it: `-batch`, `-streams`, `-events`, `-webhooks`, `-brokers`"""

    build_id: BuildId = None
    """the build of a worker, see [changing workflows under live runs](operations/versioning.md)"""
    deployment_name: DeploymentName = None
    """names the workers of all builds together; unset: the task queue's name, with `-` for `.`, `:` and `/`"""
    set_current: bool = False
    """makes the build current at a worker's start if no build is"""

    temporal_port: Port = 7233
    """port of the embedded Temporal server"""
    temporal_ui: bool = False
    """start the embedded Temporal UI (`sevenfold dev --ui`)"""
    temporal_ui_port: Port = 8233
    """port of the embedded Temporal UI"""
    temporal_dynamic_config: Annotated[tuple[str, ...], NoDecode, BeforeValidator(parse_pairs)] = ()
    """dynamic configuration of the embedded server: `key=value`, comma-separated; takes precedence over Sevenfold's
    """
    retention_days: Annotated[int, Field(ge=1, le=3650)] = 30
    """days for which the embedded server keeps ended runs, 1 to 3,650; also the window for results and idempotency
    keys
    """

    payloads_s3_bucket: Annotated[str, Field(min_length=1)] | None = None
    """S3 bucket for payloads over 256 kB instead of `DATA_DIR/payloads`; needs the extra `s3`"""

    redis_url: SecretStr | None = None
    """Redis 7 for stream logs (`redis://…`) instead of histories; needs the extra `redis`"""

    secret_key: SecretStr | None = None
    """seals webhook secrets: base64 of 32 bytes; several are comma-separated, the first seals and all open. Without
    it a key is made in the data directory, except with a Temporal cluster of your own
    """

    codec_keys: SecretStr | None = None
    """[encrypts](security.md#encryption-of-what-is-stored) what Temporal and Redis store: `id:key`, the key in base64
    of 32 bytes; several are comma-separated, the first encrypts and all decrypt
    """

    allow_loopback_urls: bool = False
    """allows webhooks and documents on this machine, in plain http too"""

    webhook_schedule: Annotated[tuple[float, ...], NoDecode, BeforeValidator(parse_schedule)] = DEFAULT_SCHEDULE
    """pause before each delivery attempt, in seconds; at most 50"""

    event_budget: Annotated[int, Field(ge=1, le=1_000_000)] = 1_000
    """events that may follow from one origin, 1 to 1,000,000"""

    temporal_ui_url: str | None = None
    """address of the Temporal UI for links in answers; known for the embedded server"""

    allow_anonymous: bool = False
    """everybody who reaches the port may use it, beyond loopback too; for a proxy that authenticates"""

    inline_start_seconds: Annotated[float, Field(ge=0, le=4)] = 0.5
    """seconds for which an agent call runs inline in its workflow task before an activity adopts it, 0 to 4; 0:
    always an activity. See the [decision](decisions/inline-calls.md)
    """

    head_seconds: Annotated[float, Field(gt=0, le=3600)] = 15
    """seconds in which a TLS handshake has to end, and a request's head to arrive, up to 3,600"""
    body_idle_seconds: Annotated[float, Field(gt=0, le=3600)] = 30
    """seconds without progress after which a request's body is given up, up to 3,600"""

    max_connections: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    """connections to the API at once; fewer if the process has fewer file descriptors"""

    metrics_port: Annotated[Port | None, BeforeValidator(parse_optional)] = None
    """where a worker or connector serves [metrics and probes](operations/observability.md)"""

    watchdog_seconds: Annotated[float, Field(ge=0, le=3600)] = 60
    """the process ends when its event loop is blocked for this long, up to 3,600; 0: never"""

    max_concurrent_calls: Annotated[int, Field(ge=1, le=10_000)] = 200
    """agent calls at once in a worker, 1 to 10,000"""
    max_cached_workflows: Annotated[int, Field(ge=0, le=100_000)] = 1000
    """workflows that a worker keeps in memory, 0 to 100,000; do not use 0 (see the
    [decision](decisions/inline-calls.md))
    """
    grace_seconds: Annotated[float, Field(ge=0, le=3600)] = 20
    """seconds that running work may take to end when a process is stopped or its [tenant is
    erased](security.md#erase-a-tenant), up to 3,600
    """
    log_level: Annotated[str, AfterValidator(check_levels)] = "info"
    """`debug`, `info`, `warning` or `error`, and levels of loggers: `info,sevenfold.api=debug`"""

    @property
    def deployment(self) -> str:
        """The name of the Worker Deployment."""
        return self.deployment_name or re.sub(r"[^A-Za-z0-9_-]", "-", self.task_queue).lstrip("_-") or "sevenfold"

    @property
    def build(self) -> WorkerDeploymentVersion | None:
        """The build of this process's workers; None without a build id. The embedded server has one worker only, so
        there a build id means nothing.
        """
        if self.build_id is None or not uses_own_cluster():
            return None
        return WorkerDeploymentVersion(self.deployment, self.build_id)

    @property
    def log_levels(self) -> dict[str, str]:
        """Levels by logger; that of the empty name is for all others."""
        return parse_levels(self.log_level)

    @property
    def ui_url(self) -> str | None:
        """The Temporal UI's URL without a trailing slash, if it is known."""
        if self.temporal_ui_url:
            return self.temporal_ui_url.rstrip("/")
        return f"http://127.0.0.1:{self.temporal_ui_port}" if self.temporal_ui and not uses_own_cluster() else None

    @property
    def base_url(self) -> str:
        """The address of this gateway without a trailing slash: the public one, else where it listens."""
        return self.public_url or self.listen_url

    @property
    def listen_url(self) -> str:
        """The address where it listens, without a trailing slash: https if a certificate is configured."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http{'s' if self.tls_cert else ''}://{host}:{self.port}"

    @property
    def has_codec_keys(self) -> bool:
        """Whether keys are set; a compose file passes an unset variable as an empty string."""
        return self.codec_keys is not None and bool(self.codec_keys.get_secret_value().strip())

    @property
    def codec_origins(self) -> tuple[str, ...]:
        """The origins of the Temporal UI, whose pages may decrypt payloads; none without codec keys."""
        url = urlsplit(self.ui_url or "")
        if not url.netloc or not self.has_codec_keys:
            return ()
        hosts = ("127.0.0.1", "localhost") if url.hostname in ("127.0.0.1", "localhost") else (url.hostname,)
        port = f":{url.port}" if url.port else ""
        return tuple(f"{url.scheme}://{host}{port}" for host in hosts)

    @property
    def codec_endpoint(self) -> str | None:
        """The address at which a browser on this machine finds the codec; None without codec keys."""
        if not self.has_codec_keys:
            return None
        is_local = self.public_url is None and self.host in ("0.0.0.0", "::")  # noqa: S104
        return (
            f"http{'s' if self.tls_cert else ''}://127.0.0.1:{self.port}/codec"
            if is_local
            else f"{self.base_url}/codec"
        )

    @property
    def own_origins(self) -> tuple[str, ...]:
        """The origin of pages that are served under the public URL, whatever `Host` a proxy passes on."""
        url = urlsplit(self.public_url or "")
        return (f"{url.scheme}://{url.netloc}",) if url.netloc else ()

    @property
    def served_hosts(self) -> tuple[str, ...]:
        """Host names that requests may be addressed to, beside those of loopback."""
        public = urlsplit(self.public_url).hostname if self.public_url else None
        wildcard = self.host in ("0.0.0.0", "::")  # noqa: S104
        return (*self.allowed_hosts, *([public] if public else []), *([] if wildcard else [self.host]))

    @property
    def local_storage(self) -> Path | None:
        """The directory whose disk needs free space, for the embedded server's database and large payloads; None if
        neither is local.
        """
        if uses_own_cluster() and self.payloads_s3_bucket is not None:
            return None
        return self.data_dir

    @property
    def grace_period(self) -> timedelta:
        """How long running work may take to end when a process stops."""
        return timedelta(seconds=self.grace_seconds)

    def check_exposure(self, *, has_credentials: bool) -> None:
        """Raises StartupError if the API would serve other machines without authentication."""
        if has_credentials or self.allow_anonymous or _is_loopback(self.host):
            return
        raise StartupError(
            f"SEVENFOLD_HOST={self.host} is reachable from other machines, and {self.config} has no keys. "
            "Create one: sevenfold keys create --tenant default --scopes admin --write. Or listen on 127.0.0.1. If a "
            "proxy in front of Sevenfold authenticates requests, set SEVENFOLD_ALLOW_ANONYMOUS=true."
        )


def uses_own_cluster() -> bool:
    """Whether TEMPORAL_ADDRESS is set, so that no embedded server runs."""
    return bool(os.environ.get("TEMPORAL_ADDRESS"))


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def load_settings() -> Settings:
    """Reads the environment. Raises StartupError, which lists every mistake with its variable's name."""
    try:
        return Settings()
    except ValidationError as error:
        lines = [
            f"SEVENFOLD_{'_'.join(str(part) for part in one['loc']).upper()}: {to_words(one)}"
            for one in error.errors(include_input=False, include_url=False)
        ]
        raise StartupError("\n".join(lines)) from None


def find_misspelt() -> list[str]:
    """Returns a sentence for each variable of the environment that is close to a setting and is none."""
    known = {f"{_PREFIX}{name.upper()}" for name in Settings.model_fields} | _OTHER_VARIABLES
    unknown = [name for name in os.environ if name.startswith(_PREFIX) and name not in known]
    hints = ((name, suggest(name, known, cutoff=0.85)) for name in unknown if not _OF_KUBERNETES.search(name))
    return [f"{name} is no setting{hint}" for name, hint in hints if hint]
