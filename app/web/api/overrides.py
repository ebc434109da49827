"""`/v2/apps/{app}/functions/{function}/overrides`: change a limit, hold a key or a function, set the waits between retries.

What each kind needs: `limit` a limit's name and what is `allowed` (a throttle also `period` and `burst`); `key` a limit's
name, a `key` and how many slots are `allowed` (none: it is held); `hold` nothing; `retry` `initial`, `factor` and `cap`. All
but `retry` need `expiresIn`.
"""

from datetime import timedelta
from typing import Any
from uuid import UUID

import msgspec
from litestar import Request, Response, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath

from app.domain.backoff import complaint_about
from app.domain.durations import parse_duration
from app.domain.errors import DurationRefused
from app.domain.ids import FunctionId
from app.domain.limits import MAX_RETRY_DELAY
from app.domain.scope import Scope
from app.domain.settings import Backoff
from app.engine import overrides
from app.engine.overrides import Done, LimitChange, OverrideRefused, Who
from app.reads import api
from app.reads.overrides import Override, overrides_of
from app.store.audit import Actor
from app.store.db import tenant
from app.web.api.answers import answer, shown_time
from app.web.api.asked import FieldInvalid, read_object, text_of
from app.web.api.ids import NotFound, text_in_path
from app.web.guards import network_of
from app.web.site import Site

AnyRequest = Request[Any, Any, Any]
_PATH = "/apps/{app_name:str}/functions/{function:str}/overrides"
_FIELDS = {
    "kind", "limit", "key", "allowed", "period", "burst", "initial", "factor", "cap", "expires_in", "reason",
}  # fmt: skip
_KINDS = ("limit", "key", "hold", "retry")
_LONGEST_REASON = 500


@get(_PATH)
async def list_overrides(
    app_name: FromPath[str],
    function: FromPath[str],
    tenant_scope: NamedDependency[Scope],
    site: NamedDependency[Site],
) -> Response[bytes]:
    """List what people changed about a function for a time: what is in force, and the last that is over."""
    function_id = await _function(site, tenant_scope, app_name, function)
    async with tenant(site.pages, tenant_scope.account_id) as connection:
        found = await overrides_of(connection, tenant_scope, function_id)
    if found is None:
        raise NotFound("function not found")
    return answer([_shown(one) for one in (*found.live, *found.past)])


@post(_PATH, status_code=200)
async def create_override(
    request: AnyRequest,
    app_name: FromPath[str],
    function: FromPath[str],
    tenant_scope: NamedDependency[Scope],
    site: NamedDependency[Site],
) -> Response[bytes]:
    """Change a limit, hold a key or the whole function for a time, or set the waits between retries."""
    function_id = await _function(site, tenant_scope, app_name, function)
    fields = read_object(await request.body(), _FIELDS, required=("kind",))
    reason = text_of(fields, "reason", longest=_LONGEST_REASON) or ""
    done = await _make(site, tenant_scope, function_id, fields, _who(request, reason))
    site.bell.ring([lane.bytes for lane in done.lanes])
    return answer({"id": str(done.id)})


@delete(_PATH + "/{override_id:str}", status_code=200)
async def end_override(
    request: AnyRequest,
    app_name: FromPath[str],
    function: FromPath[str],
    override_id: FromPath[str],
    tenant_scope: NamedDependency[Scope],
    site: NamedDependency[Site],
) -> Response[bytes]:
    """End a change before its time; one that is over stays as it is."""
    function_id = await _function(site, tenant_scope, app_name, function)
    try:
        wanted = UUID(override_id)
    except ValueError:
        raise NotFound("override not found") from None
    done = await overrides.end(site.ingest, tenant_scope, function_id, wanted, _who(request))
    if done is None:
        raise NotFound("override not found")
    site.bell.ring([lane.bytes for lane in done.lanes])
    return answer({"id": str(done.id), "ended": not done.was_over})


async def _function(site: Site, scope: Scope, app_name: str, function: str) -> FunctionId:
    async with tenant(site.pages, scope.account_id) as connection:
        found = await api.find_function(connection, scope, text_in_path(app_name), text_in_path(function))
    if found is None:
        raise NotFound("function not found")
    return FunctionId(UUID(found["id"]))


async def _make(site: Site, scope: Scope, function_id: FunctionId, fields: dict[str, Any], who: Who) -> Done:
    kind = text_of(fields, "kind")
    if kind not in _KINDS:
        raise FieldInvalid("kind", f"one of {', '.join(_KINDS)} is expected")
    if kind == "retry":
        return await overrides.change_retry(site.ingest, scope, function_id, _backoff(fields), who)
    last = _length(fields, "expires_in", is_needed=True)
    assert last is not None
    if kind == "hold":
        return await overrides.hold_function(site.ingest, scope, function_id, last, who)
    name = text_of(fields, "limit")
    if name is None:
        raise FieldInvalid("limit", "the name of a limit is expected")
    if kind == "key":
        key = text_of(fields, "key") or ""
        slots = _number(fields, "allowed", 0)
        return await overrides.change_key(site.ingest, scope, function_id, name, key, slots, last, who)
    change = LimitChange(_number(fields, "allowed", None), _length(fields, "period"), _number(fields, "burst", 0))
    return await overrides.change_limit(site.ingest, scope, function_id, name, change, last, who)


def _backoff(fields: dict[str, Any]) -> Backoff:
    initial = _length(fields, "initial", is_needed=True)
    assert initial is not None
    cap = _length(fields, "cap")
    factor = fields.get("factor", 2)
    if isinstance(factor, msgspec.Raw):  # numbers that are no integers stay as they were written
        factor = float(bytes(factor))
    if complaint := complaint_about(initial, factor, cap):
        raise OverrideRefused("override_invalid", complaint)
    return Backoff(initial, float(factor), cap or MAX_RETRY_DELAY)


def _length(fields: dict[str, Any], name: str, *, is_needed: bool = False) -> timedelta | None:
    """A length of time such as 90m; none when it is missing."""
    text = text_of(fields, name)
    if text is None:
        if is_needed:
            raise FieldInvalid(name, "a length of time such as 90m is expected")
        return None
    try:
        return parse_duration(text)
    except DurationRefused:
        raise FieldInvalid(name, "a length of time such as 90m is expected") from None


def _number(fields: dict[str, Any], name: str, default: int | None) -> int:
    value = fields.get(name)
    value = default if value is None else value
    if type(value) is not int:
        raise FieldInvalid(name, "a whole number is expected")
    return value


def _who(request: AnyRequest, reason: str = "") -> Who:
    return Who(Actor("API", network=network_of(request)), reason, is_program=True)


def _shown(one: Override) -> dict[str, object]:
    return {
        "id": str(one.id),
        "kind": one.kind,
        "subject": one.subject,
        "setting": one.setting,
        "reason": one.reason,
        "createdBy": one.actor,
        "createdAt": shown_time(one.created_at),
        "expiresAt": shown_time(one.until),
        "endedAt": shown_time(one.ended_at),
        "endedBy": one.ended_by or None,
    }


HANDLERS = (list_overrides, create_override, end_override)
