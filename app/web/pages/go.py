"""Search or jump: `/go?q=…` finds runs, events, functions, apps and pages; the palette (Ctrl K) shows the same list.

An id opens its run or event at once, in any environment the reader may see; it may stand anywhere in the text, so that
a whole address can be pasted.
"""

import re
from typing import Any
from urllib.parse import quote, urlencode

from litestar import Request, Response, Router, get
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.response import Redirect, Template

from app.domain.ids import parse_ulid
from app.reads import search
from app.reads.environments import list_environments
from app.reads.search import Hit
from app.store.accounts import find_environment
from app.store.db import tenant
from app.web.guards import NotFound, Principal, require_person
from app.web.hx import PRIVATE, Hx
from app.web.shell import frame, pages_like
from app.web.site import Site

AnyRequest = Request[Any, Any, State]

_ULID = re.compile(r"(?<![0-9A-Za-z])[0-9A-HJKMNP-TV-Za-hjkmnp-tv-z]{26}(?![0-9A-Za-z])")
_LONGEST = 400
_ICONS = {"run": "workflow", "event": "zap", "function": "square-function", "app": "boxes", "event name": "zap"}


@get("/go", name="go", include_in_schema=False)
async def go(request: AnyRequest, principal: NamedDependency[Principal], site: NamedDependency[Site]) -> Response[Any]:
    """Go there when the text is an id; else list what it may mean. For htmx with target `#found` only the list."""
    words = request.query_params.get("q", "").replace("\x00", "").strip()[:_LONGEST]
    is_partial = Hx.of(request.headers).wants("found")
    hit, hits = None, tuple[Hit, ...]()
    async with tenant(site.pages, principal.account_id, principal.user_id) as connection:
        listing = await list_environments(connection, principal.account_id)
        slug = request.query_params.get("from", "") or (listing.rows[0].slug if listing.rows else "")
        around = await find_environment(connection, principal.account_id, slug)
        if around is None and listing.rows:
            around = await find_environment(connection, principal.account_id, listing.rows[0].slug)
        if around is None:
            raise NotFound
        for text in _ULID.findall(words)[-3:]:
            found = parse_ulid(text.upper())
            hit = hit or (await search.find_id(connection, principal.account_id, found) if found else None)
        if hit is None and words:
            hits = await search.find_names(connection, principal.account_id, around.id, words)
    if hit is not None and not is_partial:
        return Redirect(_address(hit), status_code=303)
    links = (
        []
        if hit
        else [(link.words, link.icon, f"/env/{around.slug}/{link.path}".rstrip("/")) for link in pages_like(words)]
    )
    context = frame(principal, around, "go") | {
        "q": words,
        "hits": [(one, _address(one), _ICONS[one.kind]) for one in ((hit,) if hit else hits)],
        "links": links,
    }
    name = "fragments/go/found.html" if is_partial else "pages/go/go.html"
    return Template(name, context=context, headers=PRIVATE)


def _address(hit: Hit) -> str:
    base = f"/env/{hit.place}"
    if hit.kind == "event name":
        return f"{base}/events?{urlencode({'name': hit.handle})}"
    part = {"run": "runs", "event": "events", "function": "functions", "app": "apps"}[hit.kind]
    return f"{base}/{part}/{quote(hit.handle, safe='')}"


ROUTER = Router("/", route_handlers=[go], guards=[require_person])
