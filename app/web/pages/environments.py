"""The environments of an organization: list, switcher, create, archive. `/env`, `/env/new`, `/env/{slug}/archive`."""

from typing import Any
from urllib.parse import urlencode

from litestar import Request, Response, Router, get, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.response import Redirect, Template

from app.accounts import environments
from app.domain.errors import Refused
from app.reads.environments import Listing, Row, list_environments
from app.store.accounts import Environment, find_environment
from app.store.db import tenant
from app.web.forms import LARGEST_FORM, Fields
from app.web.guards import NotFound, Principal, network_of, require_person, require_role
from app.web.hx import PRIVATE, Hx
from app.web.shell import frame, path_of
from app.web.site import Site

AnyRequest = Request[Any, Any, State]
Who = NamedDependency[Principal]
Where = NamedDependency[Environment]
Here = NamedDependency[Site]

#: From this many on, lists have a search field.
_MANY = 10


@get("/env", name="environments", include_in_schema=False)
async def show_list(request: AnyRequest, principal: Who, site: Here) -> Template:
    """The environments; for htmx with target `#switcher-list` the links of the switcher.

    `section` is where links lead inside an environment, `from` the environment whose side bar is shown.
    """
    asked = request.query_params
    words = asked.get("q", "")[:100]
    listing, around = await _listing(principal, site, asked.get("from", ""))
    context = frame(principal, around, "environments") | _links(asked.get("section", "")) | {"now": listing.now}
    if Hx.of(request.headers).wants("switcher-list"):
        context |= {"rows": listing.live(), "has_search": len(listing.live()) > _MANY}
        return Template("fragments/environments/switcher.html", context=context, headers=PRIVATE)
    is_archived = asked.get("view") == "archived"
    rows = listing.archived(words) if is_archived else listing.live(words)
    context |= {
        "view": "archived" if is_archived else "live",
        "production": next((row for row in rows if row.kind == "production"), None),
        "rows": [row for row in rows if row.kind != "production"],
        "counts": (len(listing.live()), len(listing.archived())),
        "q": words,
        "has_search": len(listing.rows) > _MANY,
        "done": _done(asked.get("done", ""), listing.rows),
    }
    return Template("pages/environments/list.html", context=context, headers=PRIVATE)


@get("/env/new", name="new_environment", include_in_schema=False)
async def show_new(request: AnyRequest, principal: Who, site: Here) -> Template:
    """The form for a new environment."""
    _, around = await _listing(principal, site, request.query_params.get("from", ""))
    return _form(principal, around)


@post("/env/new", guards=[require_role("admin")], request_max_body_size=LARGEST_FORM, include_in_schema=False)
async def submit_new(request: AnyRequest, principal: Who, site: Here) -> Response[Any]:
    """Make a custom environment with its keys and go on to its set-up guide."""
    name = (await Fields.of(request)).text("name")
    try:
        async with tenant(site.pages, principal.account_id, principal.user_id) as conn:
            made = await environments.create_environment(
                conn, site.sealer, principal.account_id, principal.actor(network_of(request)), name=name
            )
    except Refused as refused:
        _, around = await _listing(principal, site, "")
        return _form(principal, around, name=name, errors={"name": refused.message})
    return Redirect(f"/env/{made.slug}/start", status_code=303)


@post("/env/{slug:str}/archive", guards=[require_role("admin")], request_max_body_size=LARGEST_FORM)
async def archive(
    *, slug: FromPath[str], request: AnyRequest, principal: Who, environment: Where, site: Here
) -> Redirect:
    """Put the environment away. Its page stays readable."""
    async with tenant(site.pages, principal.account_id, principal.user_id) as conn:
        await environments.archive_environment(conn, environment, principal.actor(network_of(request)))
    return Redirect(f"/env?{urlencode({'done': f'archived:{slug}'})}", status_code=303)


@post("/env/{slug:str}/unarchive", guards=[require_role("admin")], request_max_body_size=LARGEST_FORM)
async def unarchive(
    *, slug: FromPath[str], request: AnyRequest, principal: Who, environment: Where, site: Here
) -> Redirect:
    """Use the environment again."""
    async with tenant(site.pages, principal.account_id, principal.user_id) as conn:
        await environments.unarchive_environment(conn, environment, principal.actor(network_of(request)))
    return Redirect(f"/env?{urlencode({'done': f'unarchived:{slug}'})}", status_code=303)


@get("/env/{slug:str}", name="overview", include_in_schema=False)
async def overview(environment: Where) -> Redirect:
    """Lead to what an environment is visited for most: its runs."""
    return Redirect(f"/env/{environment.slug}/runs", status_code=303)


async def _listing(principal: Principal, site: Site, around: str) -> tuple[Listing, Environment]:
    """All environments, and the one for the side bar: the asked one, else the first that is in use."""
    async with tenant(site.pages, principal.account_id, principal.user_id) as conn:
        listing = await list_environments(conn, principal.account_id)
        slugs = {row.slug for row in listing.rows}
        first = next(iter((*listing.live(), *listing.rows)), None)
        slug = around if around in slugs else first.slug if first else ""
        environment = await find_environment(conn, principal.account_id, slug)
    if environment is None:
        raise NotFound
    return listing, environment


def _form(
    principal: Principal, around: Environment, *, name: str = "", errors: dict[str, str] | None = None
) -> Template:
    context = frame(principal, around, "environments") | {"name": name, "errors": errors or {}}
    status = 422 if errors else 200
    return Template("pages/environments/new.html", context=context, status_code=status, headers=PRIVATE)


def _links(section: str) -> dict[str, str]:
    return {"to": path_of(section), "kept": f"section={section}" if path_of(section) != "runs" else "section=runs"}


def _done(text: str, rows: tuple[Row, ...]) -> str:
    """The sentence about what was just done; only about environments that are there."""
    deed, _, slug = text.partition(":")
    name = next((row.name for row in rows if row.slug == slug), None)
    if name is None or deed not in {"archived", "unarchived"}:
        return ""
    return (
        f"{name} is archived: its keys stop working within five seconds."
        if deed == "archived"
        else f"{name} is in use again."
    )


ROUTER = Router(
    path="/",
    route_handlers=[show_list, show_new, submit_new, archive, unarchive, overview],
    guards=[require_person],
)
