"""Who did what, when, from where: `/settings/audit`, and the same as CSV. Pages can read the log and never change it."""

import csv
import io
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from litestar import Request, Response, get
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.response import Template

from app.store.audit import Actor, Entry, Wanted, insert_entry, list_nouns, search_entries
from app.store.db import tenant
from app.web.guards import Principal, network_of, require_role
from app.web.hx import PRIVATE
from app.web.pages.settings.desk import around, page
from app.web.site import Site

AnyRequest = Request[Any, Any, State]
Who = NamedDependency[Principal]
Here = NamedDependency[Site]

_PAGE_ROWS = 50
#: Lines of one export; the filter by date gives the rest.
MOST_EXPORTED = 10_000


@get("/audit", name="audit", guards=[require_role("admin")], include_in_schema=False)
async def show_audit(request: AnyRequest, principal: Who, site: Here) -> Template:
    """The newest lines that match, a page at a time."""
    async with tenant(site.pages, principal.account_id, principal.user_id) as conn:
        context = await around(conn, request, principal, "audit")
        wanted, asked, errors = _wanted(request, context["environments"])
        rows = await search_entries(conn, principal.account_id, wanted, limit=_PAGE_ROWS + 1)
        nouns = await list_nouns(conn, principal.account_id)
    shown, more = rows[:_PAGE_ROWS], len(rows) > _PAGE_ROWS
    context |= {
        "entries": shown,
        "nouns": nouns,
        "asked": asked,
        "errors": errors,
        "names": {e.id: e.name for e in context["environments"]},
        "older": f"{shown[-1].at.isoformat()}~{shown[-1].id}" if more else "",
        "is_filtered": any(asked.values()),
    }
    return page("audit", context)


@get("/audit.csv", name="audit_csv", guards=[require_role("admin")], include_in_schema=False)
async def export(request: AnyRequest, principal: Who, site: Here) -> Response[str]:
    """The same as a file, at most 10,000 lines; the export is a line of the log itself."""
    async with tenant(site.pages, principal.account_id, principal.user_id) as conn:
        context = await around(conn, request, principal, "audit")
        wanted, _, _ = _wanted(request, context["environments"])
        rows = await search_entries(conn, principal.account_id, wanted, limit=MOST_EXPORTED)
        actor: Actor = principal.actor(network_of(request))
        await insert_entry(conn, principal.account_id, actor, "audit_log.exported", detail={"lines": len(rows)})
    names = {e.id: e.name for e in context["environments"]}
    headers = PRIVATE | {"Content-Disposition": 'attachment; filename="audit-log.csv"'}
    return Response(_csv(rows, names), media_type="text/csv; charset=utf-8", headers=headers)


def _csv(rows: list[Entry], names: dict[Any, str]) -> str:
    text = io.StringIO()
    lines = csv.writer(text)
    lines.writerow(["time", "actor", "action", "object", "environment", "network", "detail"])
    for row in rows:
        cells = (row.actor, row.action, row.object, names.get(row.environment_id, ""), row.network, row.detail)
        lines.writerow([row.at.astimezone(UTC).isoformat(), *map(_cell, cells)])
    return text.getvalue()


def _cell(text: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{text}" if text.lstrip()[:1] in ("=", "+", "-", "@") or text[:1] in ("\t", "\r") else text


def _wanted(request: AnyRequest, environments: list[Any]) -> tuple[Wanted, dict[str, str], dict[str, str]]:
    """What the address asks for, the same as text for the form, and what could not be read."""
    params = request.query_params
    asked = {
        name: params.get(name, "").replace("\x00", "").strip()[:100]
        for name in ("actor", "noun", "env", "since", "until")
    }
    errors: dict[str, str] = {}
    days: dict[str, datetime | None] = {}
    for name in ("since", "until"):
        try:
            days[name] = datetime.strptime(asked[name], "%Y-%m-%d").replace(tzinfo=UTC) if asked[name] else None
        except ValueError:
            days[name], errors[name] = None, "Write a date like 2026-11-23."
    until = days["until"]
    environment = next((e.id for e in environments if asked["env"] and e.slug == asked["env"]), None)
    wanted = Wanted(
        actor=asked["actor"],
        noun=asked["noun"],
        environment_id=environment,
        since=days["since"],
        until=until + timedelta(days=1) if until and until.year < 9999 else None,
        before=_place(params.get("before", "")),
    )
    return wanted, asked, errors


def _place(text: str) -> tuple[datetime, UUID] | None:
    at, _, entry_id = text.partition("~")
    try:
        place = datetime.fromisoformat(at.replace(" ", "+")), UUID(entry_id)
    except ValueError:
        return None
    return place if place[0].tzinfo is not None else None


HANDLERS = (show_audit, export)
