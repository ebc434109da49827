"""Changes of a function for a time: the form for each, and their end. What is in force stands on its Configuration tab."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

from litestar import Request, Response, Router, get, post
from litestar.datastructures import State
from litestar.di import NamedDependency, Provide
from litestar.exceptions import NotFoundException
from litestar.params import FromPath
from litestar.response import Redirect, Template

from app.domain.backoff import complaint_about
from app.domain.durations import format_duration, parse_duration
from app.domain.errors import DurationRefused
from app.domain.limits import MAX_RETRY_DELAY
from app.domain.settings import Backoff
from app.engine import overrides
from app.engine.overrides import Done, LimitChange, OverrideRefused, Who
from app.reads import functions
from app.reads.functions import FunctionPage
from app.reads.overrides import LimitLine, overrides_of
from app.store.accounts import Environment
from app.store.db import tenant
from app.web.forms import Fields
from app.web.guards import Principal, network_of, require_person, require_role
from app.web.hx import PRIVATE
from app.web.pages.functions import function_frame
from app.web.pages.provided import provide_page_pool
from app.web.site import Site

Where = NamedDependency[Environment]
Pages = NamedDependency[Any]
AnyRequest = Request[Any, Any, State]

_LENGTHS = (
    ("15m", "15 minutes"),
    ("1h", "1 hour"),
    ("4h", "4 hours"),
    ("1d", "1 day"),
    ("7d", "7 days"),
    ("30d", "30 days"),
)
_NAMES = ("allowed", "period", "burst", "key", "initial", "factor", "cap", "expires_in", "reason")
_LONGEST_REASON = 500
_LONGEST_KEY = 2000
_LENGTH = "A length of time is expected, such as 90s or 1h."


@get("/env/{slug:str}/functions/{fn:str}/overrides/new", name="override_form", include_in_schema=False)
async def override_form(
    request: AnyRequest,
    *,
    slug: FromPath[str],
    fn: FromPath[str],
    principal: NamedDependency[Principal],
    environment: Where,
    page_pool: Pages,
) -> Template:
    """The form for one change: `what` is `limit:` or `key:` with the limit's name, `hold` or `retry`."""
    page, lines, context = await _load(page_pool, principal, environment, slug, fn)
    kind, line = _what(request.query_params.get("what", ""), lines)
    return _form(context, page, kind, line, {}, {})


@post(
    "/env/{slug:str}/functions/{fn:str}/overrides",
    name="override_set",
    include_in_schema=False,
    guards=[require_role("member")],
)
async def override_set(
    request: AnyRequest,
    *,
    slug: FromPath[str],
    fn: FromPath[str],
    principal: NamedDependency[Principal],
    environment: Where,
    page_pool: Pages,
    site: NamedDependency[Site],
) -> Response[Any]:
    """Make the change of the form; the form again with what is wrong."""
    page, lines, context = await _load(page_pool, principal, environment, slug, fn)
    fields = await Fields.of(request)
    kind, line = _what(fields.text("what"), lines)
    asked = {name: fields.text(name) for name in _NAMES}
    who = Who(principal.actor(network_of(request)), asked["reason"][:_LONGEST_REASON])
    try:
        done = await _make(site, environment, page, kind, line, asked, who)
    except OverrideRefused as refused:
        # Only the form's own names come back as fields; what a limit is called here is `allowed` there.
        named = str(refused.details.get("field") or "")
        errors = {"allowed" if named == "limit" else named or "form": refused.message}
        return _form(context, page, kind, line, asked, errors, status=422)
    site.bell.ring([lane.bytes for lane in done.lanes])
    return Redirect(f"{context['base']}/config", status_code=303)


@post(
    "/env/{slug:str}/functions/{fn:str}/overrides/{override_id:str}/end",
    name="override_end",
    include_in_schema=False,
    guards=[require_role("member")],
)
async def override_end(
    request: AnyRequest,
    *,
    slug: FromPath[str],
    fn: FromPath[str],
    override_id: FromPath[str],
    principal: NamedDependency[Principal],
    environment: Where,
    page_pool: Pages,
    site: NamedDependency[Site],
) -> Redirect:
    """End a change now; one that is over already stays so."""
    page, _, context = await _load(page_pool, principal, environment, slug, fn)
    try:
        wanted = UUID(override_id)
    except ValueError:
        raise NotFoundException from None
    who = Who(principal.actor(network_of(request)))
    done = await overrides.end(site.ingest, environment.scope, page.id, wanted, who)
    if done is None:
        raise NotFoundException
    site.bell.ring([lane.bytes for lane in done.lanes])
    return Redirect(f"{context['base']}/config", status_code=303)


async def _load(
    pool: Any, principal: Principal, environment: Environment, slug: str, fn: str
) -> tuple[FunctionPage, dict[str, LimitLine], dict[str, Any]]:
    """The function, its limits by name, and what every page about it shows."""
    async with tenant(pool, principal.account_id) as connection:
        page = await functions.find_function(connection, environment.id, fn)
        found = await overrides_of(connection, environment.scope, page.id) if page is not None else None
    if page is None or found is None:
        raise NotFoundException
    context = function_frame(principal, environment, slug, page) | {"tab": "config"}
    return page, {line.name: line for line in found.limits}, context


def _what(text: str, lines: Mapping[str, LimitLine]) -> tuple[str, LimitLine | None]:
    """Kind and limit of a change; nothing is here for anything else."""
    kind, _, name = text.partition(":")
    if kind in ("hold", "retry") and not name:
        return kind, None
    if name in lines and (kind == "limit" or (kind == "key" and not lines[name].is_added)):
        return kind, lines[name]
    raise NotFoundException


async def _make(
    site: Site,
    environment: Environment,
    page: FunctionPage,
    kind: str,
    line: LimitLine | None,
    asked: Mapping[str, str],
    who: Who,
) -> Done:
    pool, scope = site.ingest, environment.scope
    if kind == "retry":
        return await overrides.change_retry(pool, scope, page.id, _backoff(asked), who)
    last = _length(asked, "expires_in")
    if line is None:
        return await overrides.hold_function(pool, scope, page.id, last, who)
    if kind == "key":
        if line.expression and not asked["key"]:
            raise _wrong("key", "Which key is to be held?")
        if len(asked["key"]) > _LONGEST_KEY:
            raise _wrong("key", f"A key may have {_LONGEST_KEY} characters.")
        return await overrides.change_key(pool, scope, page.id, line.name, asked["key"], 0, last, who)
    period = _length(asked, "period") if line.is_throttle else None
    burst = _number(asked, "burst") if line.is_throttle else 0
    change = LimitChange(_number(asked, "allowed"), period, burst)
    return await overrides.change_limit(pool, scope, page.id, line.name, change, last, who)


def _backoff(asked: Mapping[str, str]) -> Backoff:
    initial = _length(asked, "initial")
    cap = _length(asked, "cap") if asked["cap"] else MAX_RETRY_DELAY
    try:
        factor = float(asked["factor"] or 2)
    except ValueError:
        raise _wrong("factor", "A number is expected, such as 2 or 1.5.") from None
    if complaint := complaint_about(initial, factor, cap):
        raise _wrong("factor" if "factor" in complaint else "initial", complaint)
    return Backoff(initial, factor, cap)


def _length(asked: Mapping[str, str], name: str) -> timedelta:
    try:
        return parse_duration(asked[name])
    except DurationRefused:
        raise _wrong(name, _LENGTH) from None


def _number(asked: Mapping[str, str], name: str) -> int:
    text = asked[name]
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise _wrong(name, "A whole number is expected.")
    return int(text)


def _wrong(field: str, message: str) -> OverrideRefused:
    return OverrideRefused("override_invalid", message, {"field": field})


def _form(
    context: dict[str, Any],
    page: FunctionPage,
    kind: str,
    line: LimitLine | None,
    asked: Mapping[str, str],
    errors: Mapping[str, str],
    *,
    status: int = 200,
) -> Template:
    values = dict(asked)
    if not asked and kind == "limit" and line is not None and line.is_throttle and page.config is not None:
        throttle = page.config.throttle
        if throttle is not None:
            period = format_duration(throttle.period)
            values = {"allowed": str(throttle.limit), "period": period, "burst": str(throttle.burst)}
    more = {
        "kind": kind,
        "line": line,
        "what": kind if line is None else f"{kind}:{line.name}",
        "asked": values,
        "errors": errors,
        "fields": _NAMES,
        "lengths": _LENGTHS,
    }
    return Template("pages/overrides/new.html", context=context | more, headers=PRIVATE, status_code=status)


HANDLERS: tuple[Any, ...] = (override_form, override_set, override_end)

ROUTER = Router(
    path="/",
    route_handlers=HANDLERS,
    guards=[require_person],
    dependencies={"page_pool": Provide(provide_page_pool)},
)
