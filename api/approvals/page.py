"""`/approvals/{token}`: a question on a page of its own, without a key or JavaScript. GET shows, POST decides."""

from html import escape
from typing import Annotated
from urllib.parse import parse_qsl

from fastapi import APIRouter, Path, Request, Response
from pydantic import ValidationError

from sevenfold.adapters.temporal.find_execution import find_execution
from sevenfold.adapters.temporal.updates import UpdateTimeoutError
from sevenfold.api.approvals.forms import FormError, read_fields, render_fields
from sevenfold.api.http.authorization import APPROVALS_PREFIX
from sevenfold.api.http.problems import ProblemError, ProblemType
from sevenfold.api.runs.approval_desk import ApprovalDesk
from sevenfold.api.runs.approval_links import ApprovalGrant, InvalidLinkError
from sevenfold.api.runs.dependencies import ApprovalDeskDep
from sevenfold.contracts.agents.questions import Question, QuestionResponse, ResponseAction
from sevenfold.contracts.identity import build_workflow_id

router = APIRouter(include_in_schema=False)

_MAX_FORM_BYTES = 200_000
_MAX_FIELDS = 1_000

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>:root {{ color-scheme: light dark }} body {{ font: 1.1rem/1.5 system-ui, sans-serif; max-width: 36rem;
margin: 3rem auto; padding: 0 1rem }} label {{ display: block; font-weight: 600 }} textarea, input, select {{
width: 100%; box-sizing: border-box; font: inherit; padding: .4rem }} small {{ display: block }} button {{
font: inherit; padding: .5rem 1.2rem; margin: .5rem .5rem 0 0 }}
.message {{ white-space: pre-wrap; font-size: 1.2rem }}
[role=alert] {{ border: 2px solid; padding: .5rem 1rem }}</style></head>
<body><main>{body}</main></body></html>
"""
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; "
    "frame-ancestors 'none'",
    # Not `no-referrer`: with it browsers send the form with the origin `null`, which is refused.
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
    "X-Robots-Tag": "noindex",
}

_NOT_OPEN = "This question has been answered, or is not open any more."

Token = Annotated[str, Path()]


@router.get(f"{APPROVALS_PREFIX}/{{token}}")
async def show_question(token: Token, desk: ApprovalDeskDep) -> Response:
    """Shows the question with its form; changes nothing."""
    try:
        grant = desk.links.read(token)
    except InvalidLinkError as error:
        return _say(str(error), 404)
    question = await _find(desk, grant)
    return _say(_NOT_OPEN, 410) if question is None else _ask(question)


@router.post(f"{APPROVALS_PREFIX}/{{token}}")
async def decide(token: Token, request: Request, desk: ApprovalDeskDep) -> Response:
    """Takes the answer. Twice is harmless: the same answer changes nothing, another one comes too late."""
    try:
        grant = desk.links.read(token)
    except InvalidLinkError as error:
        return _say(str(error), 404)
    body = await request.body()
    if len(body) > _MAX_FORM_BYTES:
        return _say("The answer is too long.", 413)
    question = await _find(desk, grant)
    try:
        response = _read(question, _parse(body))
        await desk.respond(grant.tenant, grant.run_id, {grant.question_id: response})
    except FormError as error:
        return _ask(question, str(error)) if question else _say(str(error), 422)
    except UpdateTimeoutError:
        return _say("The answer could not be taken now. Go back, and send it again.", 503)
    except ProblemError as problem:
        if problem.problem_type is ProblemType.INVALID and question is not None:
            return _ask(question, "; ".join(one.detail for one in problem.errors))
        return _say(_NOT_OPEN, 410)
    return _say("Thank you. Your answer was taken.", 200)


def _parse(body: bytes) -> dict[str, str]:
    """Returns the fields of a form. Raises FormError."""
    try:
        return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=_MAX_FIELDS))
    except ValueError:
        raise FormError(f"The form has more than {_MAX_FIELDS:,} fields.") from None


def _read(question: Question | None, form: dict[str, str]) -> QuestionResponse:
    """Returns the answer of a form. Raises FormError."""
    if form.get("action") == ResponseAction.DECLINE:
        return QuestionResponse(action=ResponseAction.DECLINE)
    if form.get("action") != ResponseAction.ACCEPT:
        raise FormError("Accept or decline.")
    if question is None:  # It is not open: whether this is its answer is known to the run alone.
        raise FormError(_NOT_OPEN)
    content = read_fields(question.response_schema, form)
    try:
        return QuestionResponse(action=ResponseAction.ACCEPT, content=content)
    except ValidationError:
        raise FormError("The answer is nested too deeply.") from None


async def _find(desk: ApprovalDesk, grant: ApprovalGrant) -> Question | None:
    execution = await find_execution(desk.client, build_workflow_id(grant.tenant, grant.run_id))
    questions = [] if execution is None else await desk.read(execution)
    return next((one for one in questions if one.id == grant.question_id), None)


def _ask(question: Question, problem: str = "") -> Response:
    alert = f'<p role="alert">{escape(problem)}</p>' if problem else ""
    body = (
        f'<h1>A question for you</h1><p class="message">{escape(question.message)}</p>{alert}'
        f'<form method="post">{render_fields(question.response_schema)}'
        '<button name="action" value="accept">Accept</button>'
        '<button name="action" value="decline" formnovalidate>Decline</button></form>'
        f"<p><small>Open until {question.expires_at:%Y-%m-%d %H:%M} UTC.</small></p>"
    )
    return Response(
        _PAGE.format(title="A question for you", body=body), 422 if problem else 200, _HEADERS, "text/html"
    )


def _say(text: str, status: int) -> Response:
    body = f"<h1>{escape(text)}</h1>"
    return Response(_PAGE.format(title=escape(text), body=body), status, _HEADERS, "text/html")
