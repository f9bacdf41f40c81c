"""Which scope a request needs, by its method and path."""

from collections.abc import Iterable

from sevenfold.api.dependencies import API_PREFIX
from sevenfold.api.http.problems import PROBLEM_PREFIX, ProblemError, ProblemType
from sevenfold.contracts.access.principals import Principal, RunGrant, RunScope, Scope
from sevenfold.contracts.identity import DEFAULT_TENANT

CHALLENGE = 'Bearer realm="sevenfold"'

# Requests that need no credential: probes, and what explains problems.
_OPEN_PATHS = frozenset({"/health/live", "/health/ready", PROBLEM_PREFIX})

# What is verified by a signature in the body: its sender cannot send a key.
SNS_PATH = f"{API_PREFIX}/events/sns"

# The scopes to read and to write, by the first part of the path below the prefix. `create_app` refuses a route that
# is missing here.
_SCOPES: dict[str, tuple[Scope, Scope]] = {
    **dict.fromkeys(
        ("query", "jobs", "tasks", "analyze", "stream", "hybrid", "runs", "tokens", "approvals"),
        (Scope.RUNS_READ, Scope.RUNS_WRITE),
    ),
    # A recommendation starts nothing.
    **dict.fromkeys(("agents", "patterns"), (Scope.RUNS_READ, Scope.RUNS_READ)),
    **dict.fromkeys(("stats", "usage"), (Scope.METRICS_READ, Scope.METRICS_READ)),
    **dict.fromkeys(("events", "subscriptions", "dead-letters"), (Scope.EVENTS_READ, Scope.EVENTS_WRITE)),
    "webhooks": (Scope.WEBHOOKS_READ, Scope.WEBHOOKS_WRITE),
    "admin": (Scope.ADMIN, Scope.ADMIN),
}

# What describes the API needs a key, of any scope.
_DESCRIPTIONS = frozenset({"", "docs", "swagger", "openapi.json", "asyncapi.json"})

# What OpenAI's clients ask for.
OPENAI_PREFIX = "/v1"

# Pages behind one-time links, which are the credential.
APPROVALS_PREFIX = "/approvals"

# Temporal's remote codec: shows the content of all tenants.
CODEC_PREFIX = "/codec"

_METRICS = "/metrics"

# Who sends a request whose signature is yet to be verified: a principal without permissions.
UNVERIFIED = Principal(DEFAULT_TENANT, frozenset())

_READS = frozenset({"GET", "HEAD", "OPTIONS"})
SOCKET_PATH = f"{API_PREFIX}/stream/ws"


def is_open(path: str) -> bool:
    """Whether requests to the path need no credential."""
    return path in _OPEN_PATHS or path.startswith((f"{PROBLEM_PREFIX}/", f"{APPROVALS_PREFIX}/"))


def required_scopes(method: str, path: str) -> frozenset[Scope]:
    """Returns the scopes of which a key needs one; none if any key will do. What has no route needs `admin`."""
    parts = path.split("/")
    if path == _METRICS:
        return frozenset({Scope.METRICS_READ})
    if path.startswith(f"{OPENAI_PREFIX}/"):
        return frozenset({Scope.RUNS_READ if method in _READS else Scope.RUNS_WRITE})
    if not path.startswith(f"{API_PREFIX}/"):
        if parts[1:] == ["asyncapi.json"]:
            return frozenset({Scope.EVENTS_READ})
        return frozenset() if len(parts) > 1 and parts[1] in _DESCRIPTIONS else frozenset({Scope.ADMIN})
    if path == SOCKET_PATH:  # Its first message starts a run or resumes one; the handler checks which.
        return frozenset({Scope.RUNS_READ, Scope.RUNS_WRITE})
    if parts[3] == "runs" and parts[5:] == ["token"]:  # A key passes on what it has; the handler checks it.
        return frozenset({Scope.RUNS_READ, Scope.RUNS_WRITE})
    return frozenset({_SCOPES.get(parts[3], (Scope.ADMIN, Scope.ADMIN))[method not in _READS]})


def check_routes(paths: Iterable[str]) -> None:
    """Raises RuntimeError for a route whose scope this module does not define."""
    for path in paths:
        is_known = is_open(path) or path.split("/")[1] in {
            *_DESCRIPTIONS,
            CODEC_PREFIX[1:],
            _METRICS[1:],
            OPENAI_PREFIX[1:],
        }
        if not is_known and (not path.startswith(f"{API_PREFIX}/") or path.split("/")[3] not in _SCOPES):
            raise RuntimeError(f"{path} has no scope in api/http/authorization.py")


def authorize(principal: Principal, method: str, path: str) -> None:
    """Raises 403 if the principal may not send this request."""
    if principal.run is not None:
        _authorize_run_token(principal.run, method, path)
        return
    required = required_scopes(method, path)
    if required and not any(principal.has(scope) for scope in required):
        names = " or ".join(sorted(required))
        raise ProblemError(
            ProblemType.FORBIDDEN,
            f"This needs the scope {names}.",
            headers={
                "WWW-Authenticate": f'{CHALLENGE}, error="insufficient_scope", scope="{" ".join(sorted(required))}"'
            },
        )


def run_token_scopes(method: str, path: str) -> frozenset[RunScope]:
    """Returns the scopes of which a run token needs one; none if no run token will do."""
    return _run_scopes(method, path)[0]


def _authorize_run_token(run: RunGrant, method: str, path: str) -> None:
    allowed, run_id = _run_scopes(method, path)
    if run_id is not None and run_id != run.run_id:
        raise ProblemError(ProblemType.FORBIDDEN, f"The run token is for the run {run.run_id} alone.")
    if not run.scopes & allowed:
        has = ", ".join(sorted(run.scopes))
        raise ProblemError(
            ProblemType.FORBIDDEN, f"The run token permits {has} for the run {run.run_id}, nothing else."
        )


def _run_scopes(method: str, path: str) -> tuple[frozenset[RunScope], str | None]:
    """Returns the scopes of which a run token needs one, and the run that the path names."""
    if path == SOCKET_PATH:  # The handler checks the run that the first message names.
        return frozenset({RunScope.START, RunScope.STREAM}), None
    match path.removeprefix(f"{API_PREFIX}/").split("/"):
        case ["stream"] if method == "POST":
            return frozenset({RunScope.START}), None
        case ["stream", run_id] | ["runs", run_id, "stream"] if method in _READS:
            return frozenset({RunScope.STREAM}), run_id
        case ["runs" | "jobs" | "tasks", run_id] | ["jobs", run_id, "results"] if method in _READS:
            return frozenset({RunScope.READ}), run_id
        case ["runs" | "stream", run_id, "cancel"] if method == "POST":
            return frozenset({RunScope.CANCEL}), run_id
        case ["runs", run_id, "steps"] if method == "POST":
            return frozenset({RunScope.STEP}), run_id
    return frozenset(), None
