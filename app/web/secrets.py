"""Secrets on pages: in an answer only when a POST asked for it, and every such POST is a line of the audit log.

Pages show prefix and last four characters. The same POST answers with the row (htmx, target `#key-…`), with plain text
(the copy button, which shows nothing), or with the page around the open key, which closes by itself after a minute.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from litestar import Request, Response
from litestar.datastructures import State
from litestar.response import Redirect, Template

from app.adapters.sealing import Sealer
from app.domain.scope import Scope
from app.store.accounts import Environment
from app.store.audit import Actor
from app.store.db import Connection, tenant
from app.web.guards import NotFound, Principal, network_of
from app.web.hx import PRIVATE, Hx
from app.web.site import Site

AnyRequest = Request[Any, Any, State]
Reveal = Callable[[Connection, Sealer, Scope, Actor, UUID], Awaitable[str]]

#: Seconds an open key stays on the page.
SHOWN_S = 60


@dataclass(frozen=True, slots=True)
class Shown:
    """The one key that is open in this answer."""

    id: UUID
    secret: str


def page(request: AnyRequest, context: dict[str, Any], shown: Shown | None) -> Template:
    """The page of `context["kind"]` (events, signing) with its `keys`; for htmx only the row that was asked for."""
    deed, _, key_id = request.query_params.get("done", "").partition(":")
    context |= {
        "shown": {shown.id: shown.secret} if shown else {},
        "shown_s": SHOWN_S,
        # Only about a key that is here: the sentence is not the address's to write.
        "done": deed if any(str(key.id) == key_id for key in context["keys"]) else "",
        "done_id": key_id,
    }
    hx = Hx.of(request.headers)
    for key in context["keys"]:
        if hx.wants(f"key-{key.id}"):
            return Template("fragments/keys/secret_answer.html", context=context | {"key": key}, headers=PRIVATE)
    headers = dict(PRIVATE)
    if shown:
        # Without scripts too, an open key does not stay open: the page goes back to itself as it was.
        headers["Refresh"] = f"{SHOWN_S}; url=/env/{context['environment'].slug}/keys/{context['kind']}"
    status = 422 if context["errors"] else 200
    return Template(f"pages/keys/{context['kind']}.html", context=context, headers=headers, status_code=status)


async def reveal(
    opens: Reveal, request: AnyRequest, principal: Principal, environment: Environment, site: Site, key_id: UUID
) -> str:
    """Open a key through the function that notes it in the audit log. Raises `KeyUnknown`."""
    async with tenant(site.pages, principal.account_id, principal.user_id) as conn:
        return await opens(conn, site.sealer, environment.scope, principal.actor(network_of(request)), key_id)


def back(environment: Environment, kind: str, deed: str, key_id: UUID) -> Redirect:
    """To the list, which says what was done."""
    query = urlencode({"done": f"{deed}:{key_id}"})
    return Redirect(f"/env/{environment.slug}/keys/{kind}?{query}", status_code=303)


def wants_text(request: AnyRequest) -> bool:
    """Whether a copy button asks."""
    return request.headers.get("accept") == "text/plain"


def as_text(secret: str) -> Response[str]:
    """The secret and nothing else, for the clipboard."""
    return Response(secret, media_type="text/plain", headers={"Cache-Control": "no-store"})


def key_id_of(text: str) -> UUID:
    """The id in an address. Raises `NotFound`."""
    try:
        return UUID(text)
    except ValueError:
        raise NotFound from None
