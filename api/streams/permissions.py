"""What a caller may do with a stream, where the path alone does not say it: over a WebSocket, and on disconnect."""

from sevenfold.api.http.problems import ProblemError, ProblemType
from sevenfold.contracts.access.principals import Principal, RunScope, Scope


def check_start(principal: Principal) -> None:
    """Raises 403 if the caller may not start a stream."""
    _check(principal, Scope.RUNS_WRITE, RunScope.START, "start a stream")


def check_resume(principal: Principal, run_id: str) -> None:
    """Raises 403 if the caller may not read the run's stream."""
    if principal.run is not None and principal.run.run_id != run_id:
        raise ProblemError(ProblemType.FORBIDDEN, f"The run token is for the run {principal.run.run_id} alone.")
    _check(principal, Scope.RUNS_READ, RunScope.STREAM, "read this stream")


def check_cancel(principal: Principal) -> None:
    """Raises 403 if the caller may not cancel the run of the stream that it reads."""
    _check(principal, Scope.RUNS_WRITE, RunScope.CANCEL, "cancel the run")


def _check(principal: Principal, scope: Scope, run_scope: RunScope, what: str) -> None:
    if principal.run is None:
        if not principal.has(scope):
            raise ProblemError(ProblemType.FORBIDDEN, f"Only a key with the scope {scope} may {what}.")
    elif run_scope not in principal.run.scopes:
        raise ProblemError(ProblemType.FORBIDDEN, f"The run token lacks the scope {run_scope}, so it may not {what}.")
