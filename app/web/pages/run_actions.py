"""Cancel one run, or make it again: forms, without scripts too. The answer is the page of the run that matters now."""

from typing import Any
from urllib.parse import quote

from litestar import Request, Router, get, post
from litestar.datastructures import State
from litestar.di import NamedDependency, Provide
from litestar.exceptions import NotFoundException
from litestar.params import FromPath
from litestar.response import Redirect, Template

from app.domain.ids import to_ulid
from app.engine.acts import cancel_as, replay_as
from app.engine.transition import RunEnded, RunUnknown
from app.reads.runs import rows_by_id
from app.store.accounts import Environment
from app.store.db import tenant
from app.web.guards import Principal, network_of, require_person, require_role
from app.web.hx import PRIVATE
from app.web.pages import run_edit
from app.web.pages.provided import provide_page_pool
from app.web.pages.run import parse_run
from app.web.run_desk import RunDesk, provide_run_desk
from app.web.shell import frame

AnyRequest = Request[Any, Any, State]


@get("/env/{slug:str}/runs/{run_id:str}/cancel", name="run_cancel_form", include_in_schema=False)
async def ask_to_cancel(
    *,
    slug: FromPath[str],
    run_id: FromPath[str],
    principal: NamedDependency[Principal],
    environment: NamedDependency[Environment],
    page_pool: NamedDependency[Any],
) -> Template | Redirect:
    """The question as a page, for browsers without scripts; a run that has ended has nothing to ask."""
    async with tenant(page_pool, principal.account_id) as connection:
        rows = await rows_by_id(connection, environment.id, [parse_run(run_id)])
    if not rows:
        raise NotFoundException
    base = f"/env/{slug}/runs"
    if rows[0].is_ended or not principal.may("member"):
        return Redirect(f"{base}/{rows[0].ulid}", status_code=303)
    context = frame(principal, environment, "runs") | {"base": base, "run": rows[0]}
    return Template("pages/runs/cancel.html", context=context, headers=PRIVATE)


@post("/env/{slug:str}/runs/{run_id:str}/cancel", name="run_cancel", status_code=303, guards=[require_role("member")])
async def cancel(
    request: AnyRequest,
    *,
    slug: FromPath[str],
    run_id: FromPath[str],
    principal: NamedDependency[Principal],
    environment: NamedDependency[Environment],
    desk: NamedDependency[Any],
) -> Redirect:
    """Cancel the run; one that has ended meanwhile stays as it is, and its page says so."""
    acts: RunDesk = desk
    found = parse_run(run_id)
    scope = environment.scope
    try:
        entry = await cancel_as(acts.pool, scope, found, principal.actor(network_of(request)), clock=acts.clock)
        acts.tell(scope, found, has_work=entry.emits)
    except RunUnknown:
        raise NotFoundException from None
    except RunEnded:
        pass
    return Redirect(f"/env/{slug}/runs/{to_ulid(found)}", status_code=303)


@post("/env/{slug:str}/runs/{run_id:str}/replay", name="run_replay", status_code=303, guards=[require_role("member")])
async def replay(
    request: AnyRequest,
    *,
    slug: FromPath[str],
    run_id: FromPath[str],
    principal: NamedDependency[Principal],
    environment: NamedDependency[Environment],
    desk: NamedDependency[Any],
) -> Redirect:
    """Make the run again from the step of the form field `from`: `failed`, `start` or a step's key."""
    acts: RunDesk = desk
    found = parse_run(run_id)
    asked = (await request.form()).get("from")
    from_step = asked if isinstance(asked, str) and 0 < len(asked) <= 500 else None
    scope = environment.scope
    new_id = await replay_as(acts.pool, scope, found, principal.actor(network_of(request)), from_step=from_step)
    acts.tell(scope, new_id, has_work=True)
    return Redirect(f"/env/{quote(slug)}/runs/{to_ulid(new_id)}", status_code=303)


HANDLERS: tuple[Any, ...] = (ask_to_cancel, cancel, replay, *run_edit.HANDLERS)

ROUTER = Router(
    path="/",
    route_handlers=HANDLERS,
    guards=[require_person],
    dependencies={"page_pool": Provide(provide_page_pool), "desk": Provide(provide_run_desk)},
)
