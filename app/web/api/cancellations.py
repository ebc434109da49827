"""`/v1/cancellations`: cancel many runs of a function by time and expression (protocol 16.3)."""

from datetime import UTC, datetime, timedelta
from typing import Any

from litestar import Request, Response, Router, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath

from app.domain import canonical
from app.domain.durations import parse_date
from app.domain.errors import Refused
from app.domain.expressions import ExpressionRefused
from app.domain.ids import parse_ulid, to_ulid
from app.domain.scope import Scope
from app.engine.catalogue import EnvironmentView, KnownFunction
from app.engine.orders import list_orders, place, withdraw
from app.store.db import tenant
from app.web.api.bearer import COUNTED
from app.web.api.ids import NotFound
from app.web.api.runs import enveloped
from app.web.site import Site

_PAGE = 100
#: Clocks of callers may be this far ahead; "now" is the usual end of a range.
_SKEW = timedelta(seconds=60)


@post("/v1/cancellations", status_code=200)
async def create(
    request: Request[Any, Any, Any], tenant_scope: NamedDependency[Scope], site: NamedDependency[Site]
) -> Response[bytes]:
    """Cancel the open runs of a function that started in the range; queued ones and those still to appear too."""
    body = canonical.decode(await request.body())
    if not isinstance(body, dict):
        raise _wrong("body", "Send an object with app_id, function_id and started_before.")
    now = datetime.now(UTC)
    before = _time(body, "started_before")
    after = _time(body, "started_after")
    if before is None:
        raise _wrong("started_before", "started_before is needed: a time that has passed.")
    if before > now + _SKEW:
        raise _wrong("started_before", "started_before must have passed.")
    if after is not None and after > before:
        raise _wrong("started_after", "started_after must be before started_before.")
    expression = body.get("if") or body.get("expression") or None
    if expression is not None and not isinstance(expression, str):
        raise _wrong("if", "if is an expression as text.")
    view = await site.catalogue.view(tenant_scope)
    known = _function(view, body.get("app_id"), body.get("function_id"))
    try:
        row = await place(
            site.ingest, tenant_scope, known.function, after=after, before=min(before, now), expression=expression
        )
    except ExpressionRefused as refused:
        raise Refused("expression_invalid", refused.message, {"field": "if"}) from None
    site.bell.ring()
    return enveloped(_shown(row))


@get("/v1/cancellations")
async def list_all(
    request: Request[Any, Any, Any], tenant_scope: NamedDependency[Scope], site: NamedDependency[Site]
) -> Response[bytes]:
    """The orders, newest first, a page of at most 100; `cursor` is the id of the last one seen."""
    cursor = request.query_params.get("cursor")
    before = parse_ulid(cursor) if cursor else None
    if cursor and before is None:
        raise Refused("cursor_invalid", "The cursor is not one of ours.")
    async with tenant(site.pages, tenant_scope.account_id) as connection:
        rows = await list_orders(connection, tenant_scope, before=before, room=_PAGE)
    return enveloped([_shown(row) for row in rows])


@delete("/v1/cancellations/{order_id:str}", status_code=200)
async def remove(
    order_id: FromPath[str], tenant_scope: NamedDependency[Scope], site: NamedDependency[Site]
) -> Response[bytes]:
    """Stop an order; what it has cancelled stays cancelled."""
    found = parse_ulid(order_id)
    if found is None or not await withdraw(site.ingest, tenant_scope, found):
        raise NotFound("cancellation not found")
    return enveloped({"ok": True})


def _function(view: EnvironmentView, app: object, function: object) -> KnownFunction:
    """The function by its full or its local id (protocol 16.3)."""
    if not isinstance(function, str) or not function:
        raise _wrong("function_id", "function_id is needed.")
    known = view.by_slug.get(function)
    if known is None and isinstance(app, str):
        known = view.by_slug.get(f"{app}-{function}")
    if known is None or (
        isinstance(app, str) and app and app not in (known.function.app_name, str(known.function.app_id))
    ):
        raise NotFound("function not found")
    return known


def _time(body: dict[str, Any], name: str) -> datetime | None:
    value = body.get(name)
    if value is None or value == "":
        return None
    at = parse_date(value) if isinstance(value, str) else None
    if at is None:
        raise _wrong(name, f"{name} is a time such as 2026-01-01T00:00:00Z.")
    return at


def _wrong(field: str, message: str) -> Refused:
    return Refused("field_invalid", message, {"field": field})


def _shown(row: Any) -> dict[str, object]:
    shown: dict[str, object] = {
        "id": to_ulid(row["id"]),
        "created_at": _text(row["created_at"]),
        "name": "",
        "account_id": str(row["account_id"]),
        "environment_id": str(row["environment_id"]),
        "app_id": row["app_name"],
        "function_internal_id": str(row["function_id"]),
        "function_id": row["function_slug"],
        "started_after": _text(row["started_after"]) if row["started_after"] else None,
        "started_before": _text(row["started_before"]),
        "kind": "bulk_run",
        "cause": "api",
    }
    if row["expression"] is not None:
        shown["if"] = row["expression"]
    return shown


def _text(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


ROUTER = Router(path="/", dependencies=COUNTED, route_handlers=[create, list_all, remove])
