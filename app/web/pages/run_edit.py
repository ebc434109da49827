"""Make a run again with something changed: the arguments of one step, or the data of its event. A form, without scripts too.

GET  …/edit?from=<step>      the step's input, to be changed; the steps before it are kept
GET  …/edit                  the event's data; everything runs again
POST …/edit                  ─► the page of the new run, or the form with what is wrong
"""

from typing import Any

from litestar import Request, Response, get, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.exceptions import NotFoundException
from litestar.params import FromPath, FromQuery
from litestar.response import Redirect, Template

from app.domain.errors import EventRefused, JsonRefused
from app.domain.ids import to_ulid
from app.domain.limits import MAX_OUTPUT_BYTES
from app.engine.acts import replay_as
from app.engine.replay import START, ReplayRefused
from app.reads.replayable import Editable, load_editable
from app.reads.stored import indented
from app.store.accounts import Environment
from app.store.db import Pool, tenant
from app.web.guards import Principal, network_of, require_role
from app.web.hx import PRIVATE
from app.web.pages.events import explain
from app.web.pages.run import parse_run
from app.web.run_desk import RunDesk
from app.web.shell import frame

AnyRequest = Request[Any, Any, State]
#: Bytes of a form: the largest input, and what encoding it in a form adds.
_LARGEST_FORM = 3 * MAX_OUTPUT_BYTES


@get("/env/{slug:str}/runs/{run_id:str}/edit", name="run_edit_form", include_in_schema=False)
async def run_edit_form(
    *,
    slug: FromPath[str],
    run_id: FromPath[str],
    principal: NamedDependency[Principal],
    environment: NamedDependency[Environment],
    page_pool: NamedDependency[Any],
    step: FromQuery[str] = "run",
) -> Template:
    """The form with what the step, or the whole run (`step=run`), was given."""
    found = await _load(page_pool, principal, environment, run_id, step)
    return _form(principal, environment, slug, found, indented(found.text))


@post(
    "/env/{slug:str}/runs/{run_id:str}/edit",
    name="run_edit",
    include_in_schema=False,
    guards=[require_role("member")],
    request_max_body_size=_LARGEST_FORM,
)
async def run_edit(
    request: AnyRequest,
    *,
    slug: FromPath[str],
    run_id: FromPath[str],
    principal: NamedDependency[Principal],
    environment: NamedDependency[Environment],
    page_pool: NamedDependency[Any],
    desk: NamedDependency[Any],
) -> Response[Any]:
    """Make the new run and go to it; what cannot be taken comes back with the place of the mistake."""
    acts: RunDesk = desk
    form = await request.form()
    step, text = (value if isinstance(value := form.get(name), str) else "" for name in ("step", "json"))
    found = await _load(page_pool, principal, environment, run_id, step)
    given, scope, actor = text.encode(errors="replace"), environment.scope, principal.actor(network_of(request))
    try:
        if found.is_event:
            new_id = await replay_as(acts.pool, scope, found.run.id, actor, from_step=START, data=given)
        else:
            new_id = await replay_as(acts.pool, scope, found.run.id, actor, from_step=found.key, given=given)
    except (JsonRefused, EventRefused, ReplayRefused) as refused:
        problem = refused.message if isinstance(refused, ReplayRefused) else explain(refused, text)
        return _form(principal, environment, slug, found, text, problem=problem, status=422)
    acts.tell(scope, new_id, has_work=True)
    return Redirect(f"/env/{slug}/runs/{to_ulid(new_id)}", status_code=303)


async def _load(pool: Pool, principal: Principal, environment: Environment, run_id: str, step: str) -> Editable:
    if "\x00" in step:
        raise NotFoundException
    async with tenant(pool, principal.account_id) as connection:
        found = await load_editable(connection, environment.id, parse_run(run_id), step)
    if found is None:
        raise NotFoundException
    return found


def _form(
    principal: Principal,
    environment: Environment,
    slug: str,
    found: Editable,
    text: str,
    *,
    problem: str | None = None,
    status: int = 200,
) -> Template:
    context = frame(principal, environment, "runs") | {
        "base": f"/env/{slug}/runs",
        "run": found.run,
        "edit": found,
        "text": text,
        "problem": problem,
        "may_act": principal.may("member"),
    }
    return Template("pages/runs/edit.html", context=context, headers=PRIVATE, status_code=status)


HANDLERS: tuple[Any, ...] = (run_edit_form, run_edit)
