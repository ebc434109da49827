"""Errors become answers here and nowhere else: statuses, shapes for machines, pages for people.

    who asks          body
    /e/…              {"ids": [], "status", "error", "code", "details", "request_id"}
    /v0 /v1 /fn …     {"error", "status", "data": null, "code", "details", "request_id"}
    /v2 /api …        {"errors": [{"code", "message", "details"}], "request_id"}
    people            a page, or a fragment for a partial htmx request

`error` and `message` are sentences, never an exception's text: that may hold payloads, SQL or other tenants' names.
"""

import secrets
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import asyncpg
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException
from litestar.response import Redirect, Template
from litestar.types import ExceptionHandlersMap

from app.domain.errors import Bug, Outside, Refused
from app.store.db import CONNECTION_LOST
from app.web.audience import Audience, audience_of
from app.web.headers import request_id_of

log = structlog.get_logger(__name__)

AnyRequest = Request[Any, Any, Any]

STATUSES: dict[str, int] = {
    "env_archived": 401,
    "event_key_invalid": 401,
    "unauthenticated": 401,
    "login_needed": 401,
    "csrf_failed": 403,
    "consent_denied": 403,
    "email_unverified": 403,
    "forbidden": 403,
    "invitation_for_other": 403,
    "no_organization": 403,
    "not_proven_anew": 403,
    "other_person": 403,
    "sign_up_closed": 403,
    "metadata_disabled": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "request_timeout": 408,
    "account_ending": 409,
    "account_exists": 409,
    "erasing": 409,
    "already_connected": 409,
    "function_paused": 409,
    "function_removed": 409,
    "key_in_use": 409,
    "last_method": 409,
    "linked_elsewhere": 409,
    "stale_dispatch": 409,
    "name_taken": 409,
    "owner_needed": 409,
    "plan_active": 409,
    "nothing_failed": 409,
    "not_started": 409,
    "run_not_ended": 409,
    "invitation_over": 410,
    "state_gone": 410,
    "body_too_large": 413,
    "event_too_large": 413,
    "output_too_large": 413,
    "state_too_large": 413,
    "too_many_steps": 413,
    "metadata_too_large": 413,
    "content_encoding_unsupported": 415,
    "host_unknown": 421,
    "rate_limited": 429,
    "quota_exceeded": 429,
    "headers_too_large": 431,
    "storage_unavailable": 503,
}
"""Statuses of refusals by code; a code that is not here is the caller's ordinary mistake, 400."""

#: What the database says when it is there but cannot work for us now.
_BUSY = (
    asyncpg.exceptions.OperatorInterventionError,  # shutting down, statement cut off by its time limit
    asyncpg.exceptions.InsufficientResourcesError,
    asyncpg.exceptions.LockNotAvailableError,
    asyncpg.exceptions.TransactionRollbackError,
)

_SENTENCES = {
    HTTPStatus.BAD_REQUEST: "The request cannot be read.",
    HTTPStatus.UNAUTHORIZED: "Please sign in, or send a valid key.",
    HTTPStatus.FORBIDDEN: "You may not do this.",
    HTTPStatus.NOT_FOUND: "There is nothing here, or it is not yours to see.",
    HTTPStatus.METHOD_NOT_ALLOWED: "This address does not take this method.",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "The request is too large.",
    HTTPStatus.TOO_MANY_REQUESTS: "Too many requests. Please wait a moment.",
    HTTPStatus.SERVICE_UNAVAILABLE: "Stepwell cannot reach its database just now. Please try again in a moment.",
}
_WENT_WRONG = "Something went wrong on our side. The request id helps to find out what."
_CODES = {
    400: "request_invalid",
    401: "unauthenticated",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    413: "body_too_large",
    429: "rate_limited",
}


@dataclass(frozen=True, slots=True)
class Fault:
    """An error as an answer knows it."""

    status: int
    code: str
    message: str
    details: dict[str, object] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)


def answer(request: AnyRequest, exc: Exception) -> Response[Any]:
    """Make the answer to a request that failed."""
    fault = fault_of(exc)
    if fault.status >= 500 and fault.code != "storage_unavailable":
        # The path is not logged: that of an event holds its key.
        log.error(
            "request.failed",
            request_id=request_id_of(request.scope),
            route=request.scope.get("path_template", ""),
            code=fault.code,
            exc_info=exc,
        )
    return answer_fault(request, fault)


def fault_of(exc: Exception) -> Fault:
    """Read an exception: what may be told, and how."""
    match exc:
        case Refused():
            status = STATUSES.get(exc.code, 400)
            return Fault(status, exc.code, exc.message, exc.details, _headers(status, exc.details))
        case Outside() if exc.retryable:
            return _unavailable(exc.code, exc.message)
        case Outside():
            return Fault(500, exc.code, _WENT_WRONG)
        case Bug():
            return Fault(500, "internal", _WENT_WRONG)
        case HTTPException() if exc.status_code < 500:
            return _of_framework(exc)
        case _ if isinstance(exc, (*CONNECTION_LOST, *_BUSY)):
            return _unavailable("storage_unavailable", _SENTENCES[HTTPStatus.SERVICE_UNAVAILABLE])
        case _:
            return Fault(500, "internal", _WENT_WRONG)


def answer_fault(request: AnyRequest, fault: Fault) -> Response[Any]:
    """Give a fault the shape its reader expects."""
    audience = audience_of(request.scope["path"])
    if audience is Audience.PERSON:
        return _for_person(request, fault)
    return Response(
        body_of(audience, fault, request_id_of(request.scope)),
        status_code=fault.status,
        headers=fault.headers,
        media_type="application/json",
    )


#: For the application's `exception_handlers`.
HANDLERS: ExceptionHandlersMap = {Exception: answer, HTTPException: answer}


def body_of(audience: Audience, fault: Fault, request_id: str) -> dict[str, object]:
    """The JSON of a fault for one kind of machine."""
    more: dict[str, object] = {"code": fault.code, "details": fault.details, "request_id": request_id}
    match audience:
        case Audience.EVENTS:
            return {"ids": [], "status": fault.status, "error": fault.message, **more}
        case Audience.API:
            error = {"code": fault.code, "message": fault.message, "details": fault.details}
            return {"errors": [error], "request_id": request_id}
        case Audience.PROBE:
            return {"status": fault.status, "message": fault.message, **more}
        case _:
            return {"error": fault.message, "status": fault.status, "data": None, **more}


def _for_person(request: AnyRequest, fault: Fault) -> Response[Any]:
    if fault.code == "login_needed":
        if "hx-request" in request.headers:
            # Only the path: a login page inside a fragment, or a foreign address, must never come of this.
            return Response(b"", status_code=401, headers={"HX-Redirect": "/login"}, media_type="text/html")
        target = fault.details.get("next")
        return Redirect("/login", status_code=303, query_params={"next": str(target)} if target else None)
    is_partial = request.headers.get("hx-request-type") == "partial"
    return Template(
        "fragments/errors/error.html" if is_partial else "pages/errors/error.html",
        context={
            "status": fault.status,
            "title": _title(fault.status),
            "message": fault.message,
            "code": fault.code,
            "request_id": request_id_of(request.scope),
        },
        status_code=fault.status,
        headers=fault.headers,
        media_type="text/html",
    )


def _title(status: int) -> str:
    match status:
        case 404:
            return "Not found"
        case 403:
            return "Not allowed"
        case 429:
            return "Too many requests"
        case 503:
            return "Back in a moment"
        case _ if status >= 500:
            return "Something went wrong"
        case _:
            return "That did not work"


def _of_framework(exc: HTTPException) -> Fault:
    code = _CODES.get(exc.status_code, "request_invalid")
    sentence = _SENTENCES.get(HTTPStatus(exc.status_code), HTTPStatus(exc.status_code).phrase + ".")
    details: dict[str, object] = {}
    if isinstance(exc, ValidationException) and isinstance(exc.extra, list):
        code = "field_invalid"
        details["fields"] = [str(one.get("key", "")) for one in exc.extra if isinstance(one, dict)]
    headers = _headers(exc.status_code, details)
    allow = (exc.headers or {}).get("allow")
    return Fault(exc.status_code, code, sentence, details, headers | ({"Allow": allow} if allow else {}))


def _unavailable(code: str, message: str) -> Fault:
    return Fault(503, code, message, {}, _headers(503, {}))


def _headers(status: int, details: dict[str, object]) -> dict[str, str]:
    if status in {429, 503}:
        # Spread out, so that those who were refused together do not come back together.
        after = details.get("retry_after")
        return {"Retry-After": str(after if isinstance(after, int) else 1 + secrets.randbelow(5))}
    if status == 413:
        return {"Connection": "close"}
    return {}
