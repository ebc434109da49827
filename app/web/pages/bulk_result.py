"""Bulk actions, after: progress and result, undo, pause, resume and stop, and the result as a file."""

import csv
import io
from typing import Annotated, Any
from uuid import UUID

from litestar import Request, Response, get, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.exceptions import NotFoundException
from litestar.params import FromPath, FromQuery, HeaderParameter
from litestar.response import Redirect, Stream, Template

from app.adapters.arq import JobName
from app.domain.ids import parse_ulid, to_ulid
from app.reads import bulk as reads
from app.reads.bulk import MOST, OUTCOMES
from app.store.accounts import Environment
from app.store.audit import insert_entry
from app.store.db import tenant
from app.store.named import fetch, named
from app.web.guards import Principal, network_of, require_role
from app.web.hx import PRIVATE, Hx
from app.web.live import Mark, Signals, stream
from app.web.pages.provided import STREAM_HEADERS
from app.web.run_desk import RunDesk
from app.web.shell import frame

AnyRequest = Request[Any, Any, State]
Who = NamedDependency[Principal]
Where = NamedDependency[Environment]
Pages = NamedDependency[Any]

#: What can be done to an action, and how the audit log calls it.
_STEERING = {"undo": "bulk.undone", "pause": "bulk.paused", "resume": "bulk.resumed", "stop": "bulk.stopped"}
#: Programs that open CSV run a cell that begins with one of these as a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@get("/env/{slug:str}/bulk/{bulk_id:str}", name="bulk", include_in_schema=False)
async def show(
    request: AnyRequest,
    *,
    slug: FromPath[str],
    bulk_id: FromPath[str],
    principal: Who,
    environment: Where,
    page_pool: Pages,
    outcome: FromQuery[str | None] = None,
) -> Template:
    """Progress and result; for htmx with target `#bulk` only what changes."""
    found_id = _id(bulk_id)
    outcome = outcome if outcome in OUTCOMES else None
    async with tenant(page_pool, principal.account_id) as connection:
        progress = await reads.find_progress(connection, environment.id, found_id)
        if progress is None:
            raise NotFoundException
        rows = await reads.results(connection, environment.id, found_id, outcome)
    context = frame(principal, environment, "runs") | {
        "base": f"/env/{slug}/runs",
        "bulk": f"/env/{slug}/bulk",
        "progress": progress,
        "rows": rows,
        "outcome": outcome,
        "outcomes": OUTCOMES,
        "now": progress.now,
        "may_act": principal.may("member"),
    }
    name = "fragments/bulk/progress.html" if Hx.of(request.headers).wants("bulk") else "pages/bulk/show.html"
    return Template(name, context=context, headers=PRIVATE)


@get("/env/{slug:str}/bulk/{bulk_id:str}/stream", name="bulk_stream", include_in_schema=False)
async def follow(
    *,
    bulk_id: FromPath[str],
    principal: Who,
    environment: Where,
    page_pool: Pages,
    signals: NamedDependency[Signals],
    last_event_id: Annotated[str | None, HeaderParameter(name="Last-Event-ID")] = None,
) -> Stream:
    """Server-sent `changed` while runs are changed, and `done` at the end."""
    found_id, account_id, environment_id = _id(bulk_id), principal.account_id, environment.id

    async def read() -> Mark | None:
        async with tenant(page_pool, account_id) as connection:
            progress = await reads.find_progress(connection, environment_id, found_id)
        return None if progress is None else Mark(progress.mark, progress.is_ended)

    if await read() is None:
        raise NotFoundException
    lines = stream(signals, environment_id, None, read, seen=last_event_id or "")
    return Stream(lines, media_type="text/event-stream", headers=STREAM_HEADERS)


@get("/env/{slug:str}/bulk/{bulk_id:str}/csv", name="bulk_csv", include_in_schema=False)
async def download(*, bulk_id: FromPath[str], principal: Who, environment: Where, page_pool: Pages) -> Response[bytes]:
    """Every run of the action with its outcome, as a file."""
    found_id = _id(bulk_id)
    async with tenant(page_pool, principal.account_id) as connection:
        if await reads.find_progress(connection, environment.id, found_id) is None:
            raise NotFoundException
        rows = await reads.results(connection, environment.id, found_id, None, 2 * MOST)
    text = io.StringIO()
    out = csv.writer(text)
    out.writerow(["outcome", "run", "function", "status", "new_run", "new_status", "why"])
    for r in rows:
        cells = (r.state, r.ulid, r.function_name, r.status or "", r.new_ulid or "", r.new_status or "", r.detail)
        out.writerow([f"'{cell}" if cell.startswith(_FORMULA) else cell for cell in cells])
    disposition = f'attachment; filename="bulk-{to_ulid(found_id)}.csv"'
    headers = PRIVATE | {"Content-Disposition": disposition}
    return Response(text.getvalue().encode(), media_type="text/csv; charset=utf-8", headers=headers)


@post(
    "/env/{slug:str}/bulk/{bulk_id:str}/{deed:str}", name="bulk_steer", guards=[require_role("member")], status_code=303
)
async def steer(
    request: AnyRequest,
    *,
    slug: FromPath[str],
    bulk_id: FromPath[str],
    deed: FromPath[str],
    principal: Who,
    environment: Where,
    page_pool: Pages,
    desk: NamedDependency[Any],
) -> Redirect:
    """Undo, pause, resume or stop. What was done stays done; what comes too late changes nothing and says so by itself."""
    if deed not in _STEERING:
        raise NotFoundException
    found_id = _id(bulk_id)
    acts: RunDesk = desk
    async with tenant(page_pool, principal.account_id) as connection:
        if await reads.find_progress(connection, environment.id, found_id) is None:
            raise NotFoundException
        changed = await fetch(connection, named("bulk", deed), id=found_id, environment=environment.id)
        if changed:
            await insert_entry(
                connection,
                environment.account_id,
                principal.actor(network_of(request)),
                _STEERING[deed],
                environment_id=environment.id,
                subject=to_ulid(found_id),
                detail={"dropped": len(changed)} if deed == "stop" else {},
            )
    if deed == "resume":
        acts.nudge(JobName.BULK)
    return Redirect(f"/env/{slug}/bulk/{to_ulid(found_id)}", status_code=303)


def _id(text: str) -> UUID:
    found = parse_ulid(text)
    if found is None:
        raise NotFoundException
    return found


HANDLERS: tuple[Any, ...] = (show, follow, download, steer)
