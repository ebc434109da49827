"""Why a run is not moving, as a panel of the run page and as a page of its own without scripts.

The same data as `GET /v1/runs/{id}/explain`; the sentences are in `templates/fragments/runs/why.html`. It comes after the
page, because it asks more than a page may, and again whenever the run changes.
"""

from datetime import datetime
from typing import Any

from litestar import Request, get
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.exceptions import NotFoundException
from litestar.params import FromPath
from litestar.response import Template

from app.reads.explain import explain_run
from app.reads.runs import rows_by_id
from app.store.accounts import Environment
from app.store.db import tenant
from app.web.guards import Principal
from app.web.hx import PRIVATE, Hx
from app.web.pages.run import parse_run
from app.web.shell import frame

#: Members of reasons that are instants.
_INSTANTS = frozenset({"at", "since", "received_at"})
#: What a reason may say beyond its kind; templates ask for all of it.
_BLANK = dict.fromkeys(
    ("step", "at", "since", "place", "worker", "expression", "holders", "near_misses", "child", "answer"), None
)
#: Pieces of the run's future that a panel explains.
_ROOM = 8


@get("/env/{slug:str}/runs/{run_id:str}/why", name="run_why", include_in_schema=False)
async def run_why(
    request: Request[Any, Any, State],
    *,
    slug: FromPath[str],
    run_id: FromPath[str],
    principal: NamedDependency[Principal],
    environment: NamedDependency[Environment],
    page_pool: NamedDependency[Any],
) -> Template:
    """What holds the run; for htmx with target `#why` only the panel, which is empty while the run moves."""
    found = parse_run(run_id)
    async with tenant(page_pool, principal.account_id) as connection:
        rows = await rows_by_id(connection, environment.id, [found])
        why = await explain_run(connection, environment.scope, found, room=_ROOM)
    if why is None or not rows:
        raise NotFoundException
    context = frame(principal, environment, "runs") | {
        "base": f"/env/{slug}/runs",
        "env_base": f"/env/{slug}",
        "run": rows[0],
        "now": rows[0].now,
        "why": why | {"reasons": [_BLANK | _readable(reason) for reason in why["reasons"]]},
        "is_page": not Hx.of(request.headers).wants("why"),
    }
    return Template(
        "pages/runs/why.html" if context["is_page"] else "fragments/runs/why.html", context=context, headers=PRIVATE
    )


def _readable(value: Any) -> Any:
    """The same with instants as such, for templates."""
    if isinstance(value, list):
        return [_readable(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        key: datetime.fromisoformat(each) if key in _INSTANTS and isinstance(each, str) else _readable(each)
        for key, each in value.items()
    }


HANDLERS: tuple[Any, ...] = (run_why,)
